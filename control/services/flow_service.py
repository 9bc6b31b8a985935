"""FlowService: what runs, and how; whichever control service looks after it.

A client that reads slowly gets the latest state of each flow, not every one in between: what is
kept for it is no more than what it was sent last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import grpc
from google.protobuf.empty_pb2 import Empty
from typing_extensions import override

from control.pb.cdc.v1 import cdc_pb2 as pb
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.server.statuses import ApiError, invalid, not_found
from control.services.flow_looks import FlowLooks
from control.services.flow_messages import flow_message, flow_name, gone_message, resource_name
from control.services.paging import page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from google.protobuf.message import Message

    from control.services.calls import Repetitions, Workers
    from control.services.flow_looks import Known
    from control.supervisor.board import Board
    from control.supervisor.rendering import Rendered

    _Context = grpc.aio.ServicerContext[object, object]

_LOOK_EVERY = 0.2
_MOST_NAMES = 1000


class Flows(Protocol):
    """What the service needs of the supervisor."""

    @property
    def board(self) -> Board:
        """What is known of all flows."""
        ...

    @property
    def configured(self) -> tuple[int, dict[str, Rendered]]:
        """The revision of the configuration, and the flows that it wants."""
        ...

    def pause(self, flow: str) -> None:
        """Ask for a flow to be stopped."""
        ...

    def resume(self, flow: str) -> None:
        """Ask for it to run again."""
        ...

    def restart(self, flow: str, request: str = "") -> bool:
        """Ask for it to be started anew; False: it is paused."""
        ...


class FlowService(cdc_pb2_grpc.FlowServiceServicer):
    """Implements the service.

    Args:
        flows: Runs them.
        workers: Where work is done.
        repetitions: Remembers requests that were carried out.
    """

    def __init__(self, flows: Flows, workers: Workers, repetitions: Repetitions) -> None:
        self._flows = flows
        self._workers, self._repetitions = workers, repetitions
        self._looks = FlowLooks(self._names, self._known)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_FlowServiceServicer_to_server(self, server)

    @override
    async def GetFlow(self, request: pb.GetFlowRequest, context: _Context) -> pb.Flow:
        return self._get(self._named(request.name))

    @override
    async def ListFlows(
        self, request: pb.ListFlowsRequest, context: _Context
    ) -> pb.ListFlowsResponse:
        names = self._names()
        chosen, more = page(
            sorted(names), lambda name: name, "flows", request.page_size, request.page_token
        )
        return pb.ListFlowsResponse(
            flows=[self._get(name) for name in chosen], next_page_token=more, total_size=len(names)
        )

    @override
    async def WatchFlows(
        self, request: pb.WatchFlowsRequest, context: _Context
    ) -> AsyncIterator[pb.Flow]:
        if len(request.names) > _MOST_NAMES:
            raise invalid("control.too_many", f"at most {_MOST_NAMES} names", where="names")
        wanted = {self._named(name) for name in request.names}
        sent: dict[str, pb.Flow] = {}
        looked: Mapping[str, pb.Flow] = {}
        while True:
            if (seen := self._looks.seen()) is not looked:
                looked = seen
                for name, flow in seen.items():
                    if (not wanted or name in wanted) and sent.get(name) is not flow:
                        sent[name] = flow
                        yield flow
                for name in sorted(sent.keys() - seen.keys()):
                    del sent[name]
                    yield gone_message(name)
            await asyncio.sleep(_LOOK_EVERY)

    @override
    async def PauseFlow(self, request: pb.PauseFlowRequest, context: _Context) -> pb.Flow:
        name = self._named(request.name)
        return await self._ask(name, request, request.request_id, self._flows.pause)

    @override
    async def ResumeFlow(self, request: pb.ResumeFlowRequest, context: _Context) -> pb.Flow:
        name = self._named(request.name)
        return await self._ask(name, request, request.request_id, self._flows.resume)

    @override
    async def RestartFlow(self, request: pb.RestartFlowRequest, context: _Context) -> pb.Flow:
        def restart(flow: str) -> None:
            # It remembers the last id with the restart itself: should we die before we can.
            if not self._flows.restart(flow, request.request_id):
                raise ApiError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "control.paused",
                    "the flow is paused",
                    where="name",
                    cure="resume it: it is started anew then",
                )

        return await self._ask(self._named(request.name), request, request.request_id, restart)

    async def _ask(
        self, name: str, request: Message, request_id: str, ask: Callable[[str], None]
    ) -> pb.Flow:
        """Ask something of a flow, once; the answer tells how it is now."""

        def work() -> Empty:
            ask(name)
            return Empty()

        await self._workers.run(self._repetitions.once, request_id, request, work)
        return self._get(name)

    def _names(self) -> set[str]:
        """The flows that the configuration wants, and those that have not gone yet."""
        board = self._flows.board
        leased = {flow for flow in board.flows() if board.lease(flow)}
        return leased | self._flows.configured[1].keys()

    def _named(self, resource: str) -> str:
        """The flow that a request names. Raises ApiError if there is none."""
        name = flow_name(resource)
        if not name:
            raise invalid(
                "control.name",
                f"{resource!r} is no name of a flow",
                where="name",
                cure="such as flows/capture/shop or flows/deliver/warehouse",
            )
        if name not in self._names():
            raise not_found(resource_name(name))
        return name

    def _get(self, name: str) -> pb.Flow:
        return flow_message(name, *self._known(name))

    def _known(self, name: str) -> Known:
        revision, rendered = self._flows.configured
        return self._flows.board.status(name), rendered.get(name), revision
