"""ConfigService: registers sources, sinks, pipelines and topics."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.empty_pb2 import Empty
from typing_extensions import override

from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc, config_pb2
from control.server.callers import caller
from control.server.statuses import invalid
from control.services.disposals import Disposals
from control.services.left_behind import Dropped, LeftBehind
from control.services.resource_names import read_name
from control.services.resources import Resources, require_given
from control.services.testing import tested
from control.services.whole import Whole
from control.specs.editing import Editing, asked
from control.specs.kinds import PIPELINES, SINKS, SOURCES, TOPICS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import grpc
    from google.protobuf.field_mask_pb2 import FieldMask
    from google.protobuf.message import Message

    from connectors.jetstream.spec import NatsSpec
    from control.services.resources import Listed
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
        self._sources = Resources(SOURCES, editing)
        self._sinks = Resources(SINKS, editing)
        self._pipelines = Resources(PIPELINES, editing)
        self._topics = Resources(TOPICS, editing)
        self._whole = Whole(store, editing, nats, environment, render)
        # Changes wait for one another, and nobody else is to wait for them.
        self._editors = ThreadPoolExecutor(_EDITORS, "waxtap-edits")
        self.disposals = Disposals(store, editing, nats, environment, stopped)

    def close(self) -> None:
        """Let go of the threads, once no call is under way any more."""
        self._editors.shutdown()
        self.disposals.close()

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_ConfigServiceServicer_to_server(self, server)

    # ---- sources

    @override
    async def CreateSource(
        self, request: cdc_pb2.CreateSourceRequest, context: _Context
    ) -> config_pb2.Source:
        require_given(request.source, "source", is_given=request.HasField("source"))
        given = _asked("CreateSource", request)
        return await self._create(self._sources, given, request.source_id, request.source)

    @override
    async def GetSource(
        self, request: cdc_pb2.GetSourceRequest, context: _Context
    ) -> config_pb2.Source:
        return await self._get(self._sources, request.name)

    @override
    async def ListSources(
        self, request: cdc_pb2.ListSourcesRequest, context: _Context
    ) -> cdc_pb2.ListSourcesResponse:
        found = await self._list(self._sources, request.page_size, request.page_token)
        return cdc_pb2.ListSourcesResponse(
            sources=found.resources,
            next_page_token=found.next_page_token,
            total_size=found.total_size,
        )

    @override
    async def UpdateSource(
        self, request: cdc_pb2.UpdateSourceRequest, context: _Context
    ) -> config_pb2.Source:
        is_given = request.HasField("source")
        require_given(request.source, "source", is_given=is_given, whole=False)
        given = _asked("UpdateSource", request)
        return await self._update(self._sources, given, request.source, request.update_mask)

    @override
    async def DeleteSource(self, request: cdc_pb2.DeleteSourceRequest, context: _Context) -> Empty:
        dropped = _dropped(request)
        name = read_name(SOURCES, request.name)
        given = _asked("DeleteSource", request)
        await self._edit(self._delete_source, given, request, dropped)
        if not request.validate_only:
            await self.disposals.dispose(name)
        return Empty()

    def _delete_source(
        self, given: Asked, request: cdc_pb2.DeleteSourceRequest, dropped: Dropped
    ) -> None:
        disposal = self._left_behind.disposal(read_name(SOURCES, request.name), {}, dropped)
        self._sources.delete_source(given, request.name, request.etag, disposal)

    # ---- sinks

    @override
    async def CreateSink(
        self, request: cdc_pb2.CreateSinkRequest, context: _Context
    ) -> config_pb2.Sink:
        require_given(request.sink, "sink", is_given=request.HasField("sink"))
        given = _asked("CreateSink", request)
        return await self._create(self._sinks, given, request.sink_id, request.sink)

    @override
    async def GetSink(self, request: cdc_pb2.GetSinkRequest, context: _Context) -> config_pb2.Sink:
        return await self._get(self._sinks, request.name)

    @override
    async def ListSinks(
        self, request: cdc_pb2.ListSinksRequest, context: _Context
    ) -> cdc_pb2.ListSinksResponse:
        found = await self._list(self._sinks, request.page_size, request.page_token)
        return cdc_pb2.ListSinksResponse(
            sinks=found.resources,
            next_page_token=found.next_page_token,
            total_size=found.total_size,
        )

    @override
    async def UpdateSink(
        self, request: cdc_pb2.UpdateSinkRequest, context: _Context
    ) -> config_pb2.Sink:
        require_given(request.sink, "sink", is_given=request.HasField("sink"), whole=False)
        given = _asked("UpdateSink", request)
        return await self._update(self._sinks, given, request.sink, request.update_mask)

    @override
    async def DeleteSink(self, request: cdc_pb2.DeleteSinkRequest, context: _Context) -> Empty:
        given = _asked("DeleteSink", request)
        return await self._delete(self._sinks, given, request.name, request.etag)

    # ---- pipelines

    @override
    async def CreatePipeline(
        self, request: cdc_pb2.CreatePipelineRequest, context: _Context
    ) -> config_pb2.Pipeline:
        require_given(request.pipeline, "pipeline", is_given=request.HasField("pipeline"))
        given = _asked("CreatePipeline", request)
        return await self._create(self._pipelines, given, request.pipeline_id, request.pipeline)

    @override
    async def GetPipeline(
        self, request: cdc_pb2.GetPipelineRequest, context: _Context
    ) -> config_pb2.Pipeline:
        return await self._get(self._pipelines, request.name)

    @override
    async def ListPipelines(
        self, request: cdc_pb2.ListPipelinesRequest, context: _Context
    ) -> cdc_pb2.ListPipelinesResponse:
        found = await self._list(self._pipelines, request.page_size, request.page_token)
        return cdc_pb2.ListPipelinesResponse(
            pipelines=found.resources,
            next_page_token=found.next_page_token,
            total_size=found.total_size,
        )

    @override
    async def UpdatePipeline(
        self, request: cdc_pb2.UpdatePipelineRequest, context: _Context
    ) -> config_pb2.Pipeline:
        require_given(request.pipeline, "pipeline", is_given=request.HasField("pipeline"))
        given = _asked("UpdatePipeline", request)
        return await self._update(self._pipelines, given, request.pipeline, request.update_mask)

    @override
    async def DeletePipeline(
        self, request: cdc_pb2.DeletePipelineRequest, context: _Context
    ) -> Empty:
        given = _asked("DeletePipeline", request)
        return await self._delete(self._pipelines, given, request.name, request.etag)

    # ---- topics

    @override
    async def CreateTopic(
        self, request: cdc_pb2.CreateTopicRequest, context: _Context
    ) -> config_pb2.Topic:
        require_given(request.topic, "topic", is_given=request.HasField("topic"))
        given = _asked("CreateTopic", request)
        return await self._create(self._topics, given, request.topic_id, request.topic)

    @override
    async def GetTopic(
        self, request: cdc_pb2.GetTopicRequest, context: _Context
    ) -> config_pb2.Topic:
        return await self._get(self._topics, request.name)

    @override
    async def ListTopics(
        self, request: cdc_pb2.ListTopicsRequest, context: _Context
    ) -> cdc_pb2.ListTopicsResponse:
        found = await self._list(self._topics, request.page_size, request.page_token)
        return cdc_pb2.ListTopicsResponse(
            topics=found.resources,
            next_page_token=found.next_page_token,
            total_size=found.total_size,
        )

    @override
    async def UpdateTopic(
        self, request: cdc_pb2.UpdateTopicRequest, context: _Context
    ) -> config_pb2.Topic:
        require_given(request.topic, "topic", is_given=request.HasField("topic"))
        given = _asked("UpdateTopic", request)
        return await self._update(self._topics, given, request.topic, request.update_mask)

    @override
    async def DeleteTopic(self, request: cdc_pb2.DeleteTopicRequest, context: _Context) -> Empty:
        given = _asked("DeleteTopic", request)
        return await self._delete(self._topics, given, request.name, request.etag)

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
        given, dropped = _asked("Apply", request), _dropped(request, must=False)
        done = await self._edit(self._whole.apply, given, request.yaml, request.hash, dropped)
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
        given, dropped = _asked("RollBack", request), _dropped(request, must=False)
        done = await self._edit(self._whole.roll_back, given, request.revision, dropped)
        return await self._disposed(done)

    async def _disposed(self, done: Changed[_A]) -> _A:
        """The answer, once nothing is left of what was to be removed."""
        await asyncio.gather(*map(self.disposals.dispose, done.disposals))
        return done.answer

    # ---- alike for every kind

    async def _create(self, of: Resources[_R], given: Asked, name: str, resource: _R) -> _R:
        answer = await self._edit(of.create, given, name, resource)
        return _read(type(resource), answer)

    async def _get(self, of: Resources[_R], name: str) -> _R:
        return of.get(await asyncio.to_thread(self._store.read), name)

    async def _list(self, of: Resources[_R], size: int, token: str) -> Listed[_R]:
        return of.list_(await asyncio.to_thread(self._store.read), size, token)

    async def _update(self, of: Resources[_R], given: Asked, resource: _R, mask: FieldMask) -> _R:
        answer = await self._edit(of.update, given, resource, list(mask.paths))
        return _read(type(resource), answer)

    async def _delete(self, of: Resources[_R], given: Asked, name: str, tag: str) -> Empty:
        await self._edit(of.delete, given, name, tag)
        return Empty()

    async def _edit(self, work: Callable[..., _Answer], *arguments: object) -> _Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._editors, work, *arguments)


def _read(kind: type[_R], data: bytes) -> _R:
    message = kind()
    message.ParseFromString(data)
    return message


def _asked(method: str, request: Message) -> Asked:
    validate_only: bool = getattr(request, "validate_only", False)
    request_id: str = getattr(request, "request_id", "")
    return asked(method, request, request_id, caller.get().name, validate_only=validate_only)


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
