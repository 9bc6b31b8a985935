"""ConfigService: registers sources, sinks, pipelines and topics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.empty_pb2 import Empty
from typing_extensions import override

from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc, config_pb2
from control.server.statuses import invalid
from control.services.calls import Workers
from control.services.disposals import Disposals
from control.services.left_behind import Dropped, LeftBehind
from control.services.resource_names import read_name
from control.services.resources import Resources
from control.services.standard_methods import StandardMethods, asked_by_caller
from control.services.testing import tested
from control.services.whole import Whole
from control.specs.editing import Editing
from control.specs.kinds import PIPELINES, SINKS, SOURCES, TOPICS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import grpc
    from google.protobuf.message import Message

    from connectors.jetstream.spec import NatsSpec
    from control.services.whole import Changed
    from control.specs.document import Tree
    from control.specs.editing import Asked
    from control.specs.fields import Resource
    from control.specs.planning import RenderedFlow
    from control.specs.store import SpecStore

    _Context = grpc.aio.ServicerContext[object, object]
    _R = TypeVar("_R", bound=Resource)
    _A = TypeVar("_A", bound=Message)
    _Answer = TypeVar("_Answer")
    _Disposing = cdc_pb2.DeleteSourceRequest | cdc_pb2.ApplyRequest | cdc_pb2.RollBackRequest

# So many changes may be stored at once.
_EDITORS = 32
_DISPOSALS = {
    cdc_pb2.DISPOSAL_KEEP: False,
    cdc_pb2.DISPOSAL_DROP: True,
}


class ConfigService(cdc_pb2_grpc.ConfigServiceServicer):
    """What is registered is what runs: flows follow.

    Args:
        store: Where the configuration is.
        nats: Where the flows' streams are.
        environment: Where references are looked up, as the flows will do.
        render: The flows of a configuration.
        stopped: Returns once a flow (`capture/shop`) that a revision has deleted runs nowhere any
            more, nor may be started.
    """

    def __init__(
        self,
        store: SpecStore,
        nats: NatsSpec,
        environment: Mapping[str, str],
        render: Callable[[Tree], Mapping[str, RenderedFlow]],
        stopped: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._store, self._nats, self._environment = store, nats, environment
        self._left_behind = LeftBehind(nats, environment)
        editing = Editing(store, nats, environment)
        # Changes wait for one another, and nobody else is to wait for them.
        editors = self._editors = Workers(_EDITORS)
        self._deleting = Resources(SOURCES, editing)
        self._sources = StandardMethods(self._deleting, cdc_pb2.ListSourcesResponse, store, editors)
        self._sinks = StandardMethods(
            Resources(SINKS, editing), cdc_pb2.ListSinksResponse, store, editors
        )
        self._pipelines = StandardMethods(
            Resources(PIPELINES, editing), cdc_pb2.ListPipelinesResponse, store, editors
        )
        self._topics = StandardMethods(
            Resources(TOPICS, editing), cdc_pb2.ListTopicsResponse, store, editors
        )
        self._whole = Whole(store, editing, nats, environment, render)
        self.disposals = Disposals(store, editing, nats, environment, stopped)

    def close(self) -> None:
        """Let go of the threads, once no call is under way any more."""
        self._editors.close()
        self.disposals.close()

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_ConfigServiceServicer_to_server(self, server)

    # ---- sources

    @override
    async def CreateSource(
        self, request: cdc_pb2.CreateSourceRequest, context: _Context
    ) -> config_pb2.Source:
        return await self._sources.create(request)

    @override
    async def GetSource(
        self, request: cdc_pb2.GetSourceRequest, context: _Context
    ) -> config_pb2.Source:
        return await self._sources.get(request)

    @override
    async def ListSources(
        self, request: cdc_pb2.ListSourcesRequest, context: _Context
    ) -> cdc_pb2.ListSourcesResponse:
        return await self._sources.list_(request)

    @override
    async def UpdateSource(
        self, request: cdc_pb2.UpdateSourceRequest, context: _Context
    ) -> config_pb2.Source:
        return await self._sources.update(request)

    @override
    async def DeleteSource(self, request: cdc_pb2.DeleteSourceRequest, context: _Context) -> Empty:
        dropped = _dropped(request)
        name = read_name(SOURCES, request.name)
        given = asked_by_caller("DeleteSource", request)
        await self._editors.run(self._delete_source, given, request, dropped)
        if not request.validate_only:
            await self.disposals.dispose(name)
        return Empty()

    def _delete_source(
        self, given: Asked, request: cdc_pb2.DeleteSourceRequest, dropped: Dropped
    ) -> None:
        disposal = self._left_behind.disposal(read_name(SOURCES, request.name), {}, dropped)
        self._deleting.delete_source(given, request.name, request.etag, disposal)

    # ---- sinks

    @override
    async def CreateSink(
        self, request: cdc_pb2.CreateSinkRequest, context: _Context
    ) -> config_pb2.Sink:
        return await self._sinks.create(request)

    @override
    async def GetSink(self, request: cdc_pb2.GetSinkRequest, context: _Context) -> config_pb2.Sink:
        return await self._sinks.get(request)

    @override
    async def ListSinks(
        self, request: cdc_pb2.ListSinksRequest, context: _Context
    ) -> cdc_pb2.ListSinksResponse:
        return await self._sinks.list_(request)

    @override
    async def UpdateSink(
        self, request: cdc_pb2.UpdateSinkRequest, context: _Context
    ) -> config_pb2.Sink:
        return await self._sinks.update(request)

    @override
    async def DeleteSink(self, request: cdc_pb2.DeleteSinkRequest, context: _Context) -> Empty:
        return await self._sinks.delete(request)

    # ---- pipelines

    @override
    async def CreatePipeline(
        self, request: cdc_pb2.CreatePipelineRequest, context: _Context
    ) -> config_pb2.Pipeline:
        return await self._pipelines.create(request)

    @override
    async def GetPipeline(
        self, request: cdc_pb2.GetPipelineRequest, context: _Context
    ) -> config_pb2.Pipeline:
        return await self._pipelines.get(request)

    @override
    async def ListPipelines(
        self, request: cdc_pb2.ListPipelinesRequest, context: _Context
    ) -> cdc_pb2.ListPipelinesResponse:
        return await self._pipelines.list_(request)

    @override
    async def UpdatePipeline(
        self, request: cdc_pb2.UpdatePipelineRequest, context: _Context
    ) -> config_pb2.Pipeline:
        return await self._pipelines.update(request)

    @override
    async def DeletePipeline(
        self, request: cdc_pb2.DeletePipelineRequest, context: _Context
    ) -> Empty:
        return await self._pipelines.delete(request)

    # ---- topics

    @override
    async def CreateTopic(
        self, request: cdc_pb2.CreateTopicRequest, context: _Context
    ) -> config_pb2.Topic:
        return await self._topics.create(request)

    @override
    async def GetTopic(
        self, request: cdc_pb2.GetTopicRequest, context: _Context
    ) -> config_pb2.Topic:
        return await self._topics.get(request)

    @override
    async def ListTopics(
        self, request: cdc_pb2.ListTopicsRequest, context: _Context
    ) -> cdc_pb2.ListTopicsResponse:
        return await self._topics.list_(request)

    @override
    async def UpdateTopic(
        self, request: cdc_pb2.UpdateTopicRequest, context: _Context
    ) -> config_pb2.Topic:
        return await self._topics.update(request)

    @override
    async def DeleteTopic(self, request: cdc_pb2.DeleteTopicRequest, context: _Context) -> Empty:
        return await self._topics.delete(request)

    # ---- the whole

    @override
    async def TestConnection(
        self, request: cdc_pb2.TestConnectionRequest, context: _Context
    ) -> cdc_pb2.TestConnectionResponse:
        stored = await asyncio.to_thread(self._store.read)
        return await asyncio.to_thread(tested, request, stored.tree, self._environment, self._nats)

    @override
    async def Plan(self, request: cdc_pb2.PlanRequest, context: _Context) -> cdc_pb2.PlanResponse:
        return await asyncio.to_thread(self._whole.plan, request.yaml)

    @override
    async def Apply(
        self, request: cdc_pb2.ApplyRequest, context: _Context
    ) -> cdc_pb2.ApplyResponse:
        given, dropped = asked_by_caller("Apply", request), _dropped(request, must=False)
        done = await self._editors.run(
            self._whole.apply, given, request.yaml, request.hash, dropped
        )
        return await self._disposed(done)

    @override
    async def ListRevisions(
        self, request: cdc_pb2.ListRevisionsRequest, context: _Context
    ) -> cdc_pb2.ListRevisionsResponse:
        return await asyncio.to_thread(self._whole.revisions, request.page_size, request.page_token)

    @override
    async def RollBack(
        self, request: cdc_pb2.RollBackRequest, context: _Context
    ) -> cdc_pb2.Revision:
        given, dropped = asked_by_caller("RollBack", request), _dropped(request, must=False)
        done = await self._editors.run(self._whole.roll_back, given, request.revision, dropped)
        return await self._disposed(done)

    async def _disposed(self, done: Changed[_A]) -> _A:
        """The answer, once nothing is left of what was to be removed."""
        await asyncio.gather(*map(self.disposals.dispose, done.disposals))
        return done.answer


def _dropped(request: _Disposing, *, must: bool = True) -> Dropped:
    """What of a source goes with it; it must be said, or it stays."""
    return Dropped(
        _disposal(request.server_objects, "server_objects", must=must),
        _disposal(request.stream, "stream", must=must),
    )


def _disposal(given: cdc_pb2.Disposal.ValueType, where: str, *, must: bool) -> bool:
    if given == cdc_pb2.DISPOSAL_UNSPECIFIED and not must:
        return False
    if given not in _DISPOSALS:
        raise invalid(
            "control.disposal",
            "what becomes of it must be said",
            where=where,
            cure="DISPOSAL_KEEP or DISPOSAL_DROP",
        )
    return _DISPOSALS[given]
