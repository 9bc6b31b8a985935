"""How far sources and sinks are, over gRPC; and sinks set to another place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from typing_extensions import override

from connectors.jetstream.stream import source_name
from control.explorer.page_tokens import question_digest
from control.explorer.readers import UnknownSinkError
from control.explorer.resetting import NoStreamError, OutOfRangeError, Target
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.server.statuses import ApiError, invalid, not_found
from control.services.message_filters import check_source
from control.services.moments import duration, moment, timestamp
from control.services.paging import LARGEST_SIZE, page

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.explorer.explorer import Explorer
    from control.explorer.sink_offsets import Part, SinkOffset
    from control.explorer.source_offsets import SourceOffset
    from control.pb.cdc.v1 import config_pb2
    from control.services.calls import Repetitions, Workers

    _Context = grpc.aio.ServicerContext[object, object]


class OffsetService(cdc_pb2_grpc.OffsetServiceServicer):
    """How far sources and sinks are.

    Args:
        explorer: Reads streams, and asks sinks and sources.
        paused: Whether a flow was paused, and no process of it runs any more.
        workers: Where work is done.
        repetitions: Remembers requests that were carried out.
    """

    def __init__(
        self,
        explorer: Explorer,
        paused: Callable[[str], bool],
        workers: Workers,
        repetitions: Repetitions,
    ) -> None:
        self._explorer, self._paused = explorer, paused
        self._workers, self._repetitions = workers, repetitions

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_OffsetServiceServicer_to_server(self, server)

    @override
    async def ListSinkOffsets(
        self, request: cdc_pb2.ListSinkOffsetsRequest, context: _Context
    ) -> cdc_pb2.ListSinkOffsetsResponse:
        """By sink, stream, topic and partition."""

        def work() -> cdc_pb2.ListSinkOffsetsResponse:
            found = self._parts(request.sink, "sink")
            chosen, token = page(
                found,
                _key,
                question_digest("sink offsets", request.sink),
                request.page_size,
                request.page_token,
            )
            return cdc_pb2.ListSinkOffsetsResponse(
                offsets=[_of_sink(each) for each in self._explorer.sink_offsets(chosen)],
                next_page_token=token,
            )

        return await self._workers.run(work)

    @override
    async def ListSourceOffsets(
        self, request: cdc_pb2.ListSourceOffsetsRequest, context: _Context
    ) -> cdc_pb2.ListSourceOffsetsResponse:
        """By source."""
        check_source(request.source, "source")

        def work() -> cdc_pb2.ListSourceOffsetsResponse:
            names = self._explorer.sources()
            if request.source and request.source not in names:
                raise not_found(f"sources/{request.source}")
            chosen, token = page(
                (request.source,) if request.source else names,
                str,
                question_digest("source offsets", request.source),
                request.page_size,
                request.page_token,
            )
            return cdc_pb2.ListSourceOffsetsResponse(
                offsets=[_of_source(each) for each in self._explorer.source_offsets(chosen)],
                next_page_token=token,
            )

        return await self._workers.run(work)

    @override
    async def ResetSinkOffset(
        self, request: cdc_pb2.ResetSinkOffsetRequest, context: _Context
    ) -> cdc_pb2.ResetSinkOffsetResponse:
        """Set a paused sink to another place, and tell how far it is then."""
        if not request.sink:
            raise invalid("control.missing", "name the sink", where="sink")
        check_source(request.source, "source")
        target = _target(request.to)
        if target.sequence and not request.source:
            raise invalid(
                "control.source",
                "a sequence is that of one stream: name its source",
                where="source",
            )

        def work() -> cdc_pb2.ResetSinkOffsetResponse:
            told = self._parts(request.sink, "sink")[:LARGEST_SIZE]
            flow = f"deliver/{request.sink}"
            if not self._paused(flow):
                raise ApiError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "control.not_paused",
                    "the flow of the sink runs, or has not ended yet",
                    where=f"flows/{flow}",
                    cure="pause it first, and wait until it is paused",
                )
            try:
                self._explorer.reset(request.sink, request.source, target)
            except NoStreamError:
                raise invalid(
                    "control.source",
                    f"{request.sink!r} reads no stream of a source {request.source!r}",
                    where="source",
                ) from None
            except OutOfRangeError as error:
                raise invalid("control.sequence", str(error), where="to.sequence") from None
            return cdc_pb2.ResetSinkOffsetResponse(
                offsets=[_of_sink(each) for each in self._explorer.sink_offsets(told)]
            )

        return await self._workers.run(self._repetitions.once, request.request_id, request, work)

    def _parts(self, sink: str, where: str) -> list[Part]:
        try:
            return self._explorer.sink_parts(sink)
        except UnknownSinkError:
            raise invalid("control.sink", f"there is no sink {sink!r}", where=where) from None


def _key(part: Part) -> str:
    """Sorts as the list does: a blank comes before everything that a name may hold."""
    return f"{part.sink} {part.stream} {part.topic} {part.partition:05}"


def _target(to: config_pb2.Start) -> Target:
    kind = to.WhichOneof("at")
    if kind == "beginning" and to.beginning:
        return Target(beginning=True)
    if kind == "end" and to.end:
        return Target(end=True)
    if kind == "time":
        time = moment(to.time, "to.time")
        if time <= 0:
            raise invalid("control.time", "a time since 1970", where="to.time")
        return Target(time=time)
    if kind == "sequence":
        if to.sequence < 1:
            raise invalid("control.sequence", "sequences begin at 1", where="to.sequence")
        return Target(sequence=to.sequence)
    raise invalid(
        "control.missing",
        "say where to: beginning, end, time or sequence",
        where=f"to.{kind}" if kind else "to",
    )


def _of_sink(offset: SinkOffset) -> cdc_pb2.SinkOffset:
    part, consumer = offset.part, offset.consumer
    return cdc_pb2.SinkOffset(
        sink=part.sink,
        source=source_name(part.stream),
        stream=part.stream,
        topic=part.topic,
        partition=part.partition,
        position=offset.position,
        ack_floor=consumer.floor,
        pending=consumer.pending,
        unacknowledged=consumer.unacknowledged,
        redelivered=consumer.redelivered,
        lag_messages=offset.lag,
        lag_bytes=offset.lag_bytes,
        lag_time=duration(offset.lag_time),
    )


def _of_source(offset: SourceOffset) -> cdc_pb2.SourceOffset:
    found = cdc_pb2.SourceOffset(
        source=offset.source,
        stream=offset.stream,
        position=offset.position,
        checkpoint_time=timestamp(offset.checkpoint_time),
        lag_bytes=-1,
    )
    seen = offset.observation
    if seen is not None:
        found.server_position = seen.position
        found.slot, found.slot_active = seen.slot, seen.slot_active
        found.retained_bytes = seen.retained
        if seen.lag is not None:
            found.lag_bytes = seen.lag
            found.lag_time.CopyFrom(duration(offset.lag_time))
    return found
