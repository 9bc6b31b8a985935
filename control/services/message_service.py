"""The message explorer over gRPC: stored topics, messages, and a look at new ones as they come."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import grpc
from typing_extensions import override

from control.explorer.deliveries import Fate
from control.explorer.page_tokens import question_digest
from control.explorer.readers import UnknownSinkError
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.server.statuses import invalid, not_found
from control.services.message_filters import check_pattern, fates, ordered, wanted
from control.services.moments import timestamp
from control.services.paging import DEFAULT_SIZE, LARGEST_SIZE, bounded, page
from control.services.pieces import Seats, pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from control.explorer.deliveries import Delivery
    from control.explorer.explorer import Explorer
    from control.explorer.messages import Message
    from control.explorer.readers import Reader
    from control.explorer.topics import Held
    from control.services.calls import Workers

    _Context = grpc.aio.ServicerContext[object, object]

_NAME = re.compile(r"streams/(CDC_[A-Za-z0-9_-]+)/messages/([1-9][0-9]{0,18})")
_PREVIEW, _LONGEST_PREVIEW = 256, 65536
# So many callers may follow at once; each asks so often (seconds) for what is new.
_MOST_TAILS, _TAIL_PAUSE = 32, 0.2
# So many may read a whole row at once, which is in memory meanwhile.
_MOST_READINGS = 8
_STATES = {
    Fate.UNKNOWN: cdc_pb2.DELIVERY_STATE_UNSPECIFIED,
    Fate.UNSENT: cdc_pb2.DELIVERY_STATE_UNSENT,
    Fate.SENT: cdc_pb2.DELIVERY_STATE_SENT,
    Fate.FAILED: cdc_pb2.DELIVERY_STATE_FAILED,
    Fate.PARKED: cdc_pb2.DELIVERY_STATE_PARKED,
}
# A page number that lies behind every message.
_LAST_PAGE = 1 << 40


class MessageService(cdc_pb2_grpc.MessageServiceServicer):
    """Looks into the streams. Reads only.

    Args:
        explorer: Reads them.
        workers: Where it does so.
    """

    def __init__(self, explorer: Explorer, workers: Workers) -> None:
        self._explorer, self._workers = explorer, workers
        self._tails = Seats(_MOST_TAILS, "control.too_many_tails", "following")
        self._readings = Seats(_MOST_READINGS, "control.too_many_readings", "reading large rows")

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_MessageServiceServicer_to_server(self, server)

    @override
    async def ListStoredTopics(
        self, request: cdc_pb2.ListStoredTopicsRequest, context: _Context
    ) -> cdc_pb2.ListStoredTopicsResponse:
        """Topics as they are found in the streams, by name."""
        check_pattern(request.filter, "filter")

        def work() -> cdc_pb2.ListStoredTopicsResponse:
            found = self._explorer.topics(request.filter)
            kind = question_digest("topics", request.filter)
            chosen, following = page(
                list(found.items()),
                lambda each: each[0],
                kind,
                request.page_size,
                request.page_token,
            )
            readers = self._explorer.readers()
            told = ((name, self._topic(name, parts, readers)) for name, parts in chosen)
            topics, following = bounded(kind, told, following)
            return cdc_pb2.ListStoredTopicsResponse(
                topics=topics,
                next_page_token=following,
                total_size=len(found),
            )

        return await self._workers.run(work)

    @override
    async def ListMessages(
        self, request: cdc_pb2.ListMessagesRequest, context: _Context
    ) -> cdc_pb2.ListMessagesResponse:
        """A page of messages."""
        choice, order = wanted(request.filter), ordered(request.order)
        if request.limit < 0:
            raise invalid("control.limit", "it is negative", where="limit")
        limit = min(request.limit or DEFAULT_SIZE, LARGEST_SIZE)
        if request.page and request.page_token:
            raise invalid("control.page", "either a page or a page token", where="page_token")
        if not 0 <= request.page <= _LAST_PAGE:
            raise invalid("control.page", "the first page is 1", where="page")

        states = fates(request.filter)

        def work() -> cdc_pb2.ListMessagesResponse:
            try:
                found, deliveries, following = self._explorer.messages(
                    choice,
                    order,
                    limit=limit,
                    preview=preview_bytes(request.preview_bytes),
                    number=request.page or 1,
                    token=request.page_token,
                    sink=request.filter.sink,
                    fates=states,
                )
            except UnknownSinkError:
                raise invalid(
                    "control.sink", f"there is no sink {request.filter.sink!r}", where="filter.sink"
                ) from None
            except ValueError as error:
                raise invalid("control.page_token", str(error), where="page_token") from None
            return cdc_pb2.ListMessagesResponse(
                messages=[shown(*each) for each in zip(found.messages, deliveries, strict=True)],
                next_page_token=following,
                total_size=found.total,
                scanned=found.scanned,
                incomplete=found.incomplete,
            )

        return await self._workers.run(work)

    @override
    async def GetMessage(
        self, request: cdc_pb2.GetMessageRequest, context: _Context
    ) -> cdc_pb2.Message:
        """A message with headers, payload, and its state at every sink."""

        def work() -> cdc_pb2.Message | None:
            found = self._explorer.message(*_place(request.name))
            if found is None:
                return None
            told = shown(*found)
            told.schema_version = self._explorer.schema_version(found[0])
            return told

        told = await self._workers.run(work)
        if told is None:
            raise not_found(request.name)
        return told

    @override
    async def ReadMessagePayload(
        self, request: cdc_pb2.GetMessageRequest, context: _Context
    ) -> AsyncIterator[cdc_pb2.PayloadPiece]:
        """The whole payload of a message."""
        stream, sequence = _place(request.name)
        with self._readings.taken():
            payload = await self._workers.run(self._explorer.payload, stream, sequence)
            if payload is None:
                raise not_found(request.name)
            for piece in pieces(payload):
                yield piece

    @override
    async def TailMessages(
        self, request: cdc_pb2.TailMessagesRequest, context: _Context
    ) -> AsyncIterator[cdc_pb2.Message]:
        """Messages as they are stored, until the caller goes."""
        choice = wanted(request.filter)
        for name in ("start_time", "end_time", "sink", "states"):
            if _has(request.filter, name):
                raise invalid(
                    "control.tail",
                    "what is being stored has no other time than now, and was sent nowhere yet",
                    where=f"filter.{name}",
                )
        if not 0 <= request.last <= LARGEST_SIZE:
            raise invalid("control.last", f"0 to {LARGEST_SIZE}", where="last")
        preview = preview_bytes(request.preview_bytes)
        with self._tails.taken():
            tail = await self._workers.run(
                self._explorer.tail, choice, last=request.last, preview=preview
            )
            while True:
                messages = await self._workers.run(tail.next)
                for message in messages:
                    yield shown(message)
                if not messages:
                    await asyncio.sleep(_TAIL_PAUSE)

    def _topic(
        self, name: str, parts: list[Held], readers: dict[str, Reader]
    ) -> cdc_pb2.StoredTopic:
        found = self._explorer.partitions(parts)
        reading = {
            reader.name
            for reader in readers.values()
            for part in parts
            for subject in part.subjects
            if reader.reads(part.stream.source, subject)
        }
        return cdc_pb2.StoredTopic(
            name=f"storedTopics/{name}",
            messages=sum(each.messages for each in found),
            bytes=sum(each.bytes for each in found),
            partitions=[
                cdc_pb2.StoredPartition(
                    stream=each.stream,
                    source=each.source,
                    partition=each.partition,
                    messages=each.messages,
                    bytes=each.bytes,
                    first_sequence=each.first[0],
                    last_sequence=each.last[0],
                    first_time=timestamp(each.first[1]),
                    last_time=timestamp(each.last[1]),
                    rate=each.rate,
                )
                for each in found
            ],
            sources=sorted({each.source for each in found}),
            sinks=sorted(reading),
        )


def _place(name: str) -> tuple[str, int]:
    """The stream and the sequence that a name tells. Raises ApiError: it is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise invalid(
            "control.name",
            f"{name!r} is no name of a message",
            where="name",
            cure="streams/CDC_shop/messages/4711",
        )
    return found[1], int(found[2])


def _has(given: cdc_pb2.MessageFilter, name: str) -> bool:
    return name in {field.name for field, _ in given.ListFields()}


def preview_bytes(given: int) -> int:
    """How much of each payload is shown. Raises ApiError: less than nothing."""
    if given < 0:
        raise invalid("control.preview", "must not be negative", where="preview_bytes")
    return min(given or _PREVIEW, _LONGEST_PREVIEW)


def shown(message: Message, deliveries: Sequence[Delivery] = ()) -> cdc_pb2.Message:
    """A message as the API has it, with what became of it."""
    return cdc_pb2.Message(
        name=f"streams/{message.stream}/messages/{message.sequence}",
        stream=message.stream,
        source=message.source,
        topic=message.topic,
        partition=message.partition,
        sequence=message.sequence,
        time=timestamp(message.time),
        key=message.key,
        op=message.op,
        position=message.position,
        transaction=message.transaction,
        size=message.size,
        payload=message.payload,
        payload_cut=message.cut,
        deliveries=[
            cdc_pb2.Delivery(sink=each.sink, state=_STATES[each.fate], error=each.error)
            for each in deliveries
        ],
        headers=[cdc_pb2.Header(name=name, value=value) for name, value in message.headers],
    )
