"""Dead letters over gRPC: looked at, delivered once more, deleted."""

from __future__ import annotations

import heapq
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from typing_extensions import override

from connectors.jetstream import letter_index
from connectors.jetstream.connection import connect
from connectors.jetstream.letters import incarnation
from connectors.letters import State
from connectors.subjects import topic_of
from control.explorer.messages import operation, partition_of
from control.explorer.page_tokens import question_digest
from control.explorer.pages import MOST_BYTES
from control.explorer.readers import readers
from control.explorer.timestamps import to_nanoseconds
from control.letters import search
from control.letters.actions import carry_out
from control.letters.selection import Selection
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.server.statuses import invalid, not_found
from control.services.message_filters import (
    check_pattern,
    check_source,
    checked_ops,
    checked_partition,
    checked_range,
)
from control.services.moments import timestamp
from control.services.paging import bounded, page_size, read_token, token
from control.services.pieces import Seats, pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import grpc

    from connectors.jetstream.spec import NatsSpec
    from connectors.letters import Head
    from control.explorer.readers import Specs
    from control.letters.actions import Action, Outcome
    from control.services.calls import Repetitions, Workers

    _Context = grpc.aio.ServicerContext[object, object]
    _Request = cdc_pb2.ReplayDeadLettersRequest | cdc_pb2.DiscardDeadLettersRequest

_NAME = re.compile(
    r"sinks/([a-z0-9_-]+)/streams/(CDC_[A-Za-z0-9_-]+)/deadLetters/([1-9][0-9]{0,18})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Seconds without an answer of a flow after which its letters are left to themselves.
_PATIENCE = 10.0
# So many may read a whole row at once, which is in memory meanwhile.
_MOST_READINGS = 8
_STATES = {
    State.FAILED: cdc_pb2.LETTER_STATE_FAILED,
    State.PARKED: cdc_pb2.LETTER_STATE_PARKED,
    State.SKIPPED: cdc_pb2.LETTER_STATE_SKIPPED,
}
_BY_NUMBER: dict[int, State] = {number: state for state, number in _STATES.items()}


class DeadLetterService(cdc_pb2_grpc.DeadLetterServiceServicer):
    """Changes that sinks have put aside.

    Args:
        nats: Where they are.
        specs: Where sinks are registered.
        workers: Where work is done.
        repetitions: Remembers requests that were carried out.
        patience: Seconds without an answer of a flow after which it is waited for no longer.
    """

    def __init__(
        self,
        nats: NatsSpec,
        specs: Specs,
        workers: Workers,
        repetitions: Repetitions,
        patience: float = _PATIENCE,
    ) -> None:
        self._nats, self._specs, self._patience = nats, specs, patience
        self._workers, self._repetitions = workers, repetitions
        self._readings = Seats(_MOST_READINGS, "control.too_many_readings", "reading large rows")

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_DeadLetterServiceServicer_to_server(self, server)

    @override
    async def ListDeadLetters(
        self, request: cdc_pb2.ListDeadLettersRequest, context: _Context
    ) -> cdc_pb2.ListDeadLettersResponse:
        """By sink, stream and sequence."""
        chosen = _selection(request.filter)
        count = page_size(request.page_size)
        question = question_digest("letters", chosen)
        behind = read_token(question, request.page_token)

        def work() -> cdc_pb2.ListDeadLettersResponse:
            total = 0

            def following() -> Iterator[Head]:
                nonlocal total
                for head in search.chosen(connection, chosen):
                    total += 1
                    if _key(head) > behind:
                        yield head

            with connect(self._nats) as connection:
                found = heapq.nsmallest(count + 1, following(), key=_key)
            page = found[:count]
            more = token(question, _key(page[-1])) if len(found) > count else ""
            letters, more = bounded(question, ((_key(head), _shown(head)) for head in page), more)
            return cdc_pb2.ListDeadLettersResponse(
                dead_letters=letters,
                next_page_token=more,
                total_size=total,
            )

        return await self._workers.run(work)

    @override
    async def GetDeadLetter(
        self, request: cdc_pb2.GetDeadLetterRequest, context: _Context
    ) -> cdc_pb2.DeadLetter:
        """A letter with its change."""
        head, payload = await self._workers.run(self._read, request.name)
        shown = _shown(head)
        # A character that was cut in two is left out.
        shown.payload = payload[:MOST_BYTES].decode("utf-8", "ignore")
        shown.payload_cut, shown.size = len(payload) > MOST_BYTES, len(payload)
        shown.op = operation(b"", payload)
        return shown

    @override
    async def ReadDeadLetterPayload(
        self, request: cdc_pb2.GetDeadLetterRequest, context: _Context
    ) -> AsyncIterator[cdc_pb2.PayloadPiece]:
        """The whole change of a letter."""
        with self._readings.taken():
            _, payload = await self._workers.run(self._read, request.name)
            for piece in pieces(payload):
                yield piece

    def _read(self, name: str) -> tuple[Head, bytes]:
        """A letter and its change. Raises ApiError: the name is none, or nothing has it."""
        named = _NAME.fullmatch(name)
        if named is None:
            raise invalid(
                "control.name",
                f"{name!r} is no name of a dead letter",
                where="name",
                cure="sinks/warehouse/streams/CDC_shop/deadLetters/4711",
            )
        with connect(self._nats) as connection:
            found = letter_index.named(connection, named[1], named[2], int(named[3]))
            for head, change in letter_index.read(connection, found[-1:]):
                return head, change.envelope
        raise not_found(name)

    @override
    async def ReplayDeadLetters(
        self, request: cdc_pb2.ReplayDeadLettersRequest, context: _Context
    ) -> cdc_pb2.ReplayDeadLettersResponse:
        """Have letters delivered once more by the flows that hold them."""
        chosen = _sure(request)

        def work() -> cdc_pb2.ReplayDeadLettersResponse:
            done = self._act("replay", chosen)
            return cdc_pb2.ReplayDeadLettersResponse(
                replayed=done.total.replayed,
                refused=done.total.failed,
                waiting=done.total.waiting,
                unanswered=done.letters_unanswered,
                error=done.total.error,
            )

        return await self._workers.run(self._repetitions.once, request.request_id, request, work)

    @override
    async def DiscardDeadLetters(
        self, request: cdc_pb2.DiscardDeadLettersRequest, context: _Context
    ) -> cdc_pb2.DiscardDeadLettersResponse:
        """Have letters deleted undelivered."""
        chosen = _sure(request)

        def work() -> cdc_pb2.DiscardDeadLettersResponse:
            done = self._act("discard", chosen)
            return cdc_pb2.DiscardDeadLettersResponse(
                discarded=done.total.discarded, unanswered=done.letters_unanswered
            )

        return await self._workers.run(self._repetitions.once, request.request_id, request, work)

    def _act(self, action: Action, chosen: Selection) -> Outcome:
        sinks = readers(self._specs.read())
        with connect(self._nats) as connection:
            heads = search.chosen(connection, chosen)
            return carry_out(connection, action, heads, sinks, self._patience)


def _selection(given: cdc_pb2.DeadLetterFilter) -> Selection:
    """What a filter asks for. Raises ApiError: a field of it is wrong."""
    check_pattern(given.topic, "filter.topic")
    check_source(given.source, "filter.source")
    check_source(given.sink, "filter.sink")
    partition = checked_partition(given)
    ops = checked_ops(given.ops)
    for index, state in enumerate(given.states):
        if state not in _BY_NUMBER:
            raise invalid("control.state", f"{state} is no state", where=f"filter.states[{index}]")
    for index, sequence in enumerate(given.sequences):
        if sequence < 1:
            raise invalid(
                "control.sequence", "sequences begin at 1", where=f"filter.sequences[{index}]"
            )
    for name, sequence in (
        ("first_sequence", given.first_sequence),
        ("last_sequence", given.last_sequence),
    ):
        if sequence < 0:
            raise invalid("control.sequence", "it is negative", where=f"filter.{name}")
    start, end = checked_range(given)
    return Selection(
        sink=given.sink,
        source=given.source,
        topic=given.topic,
        partition=partition,
        key=given.key,
        error=given.error,
        error_code=given.error_code,
        states=frozenset(_BY_NUMBER[state] for state in given.states),
        ops=ops,
        text=given.text,
        first=given.first_sequence,
        last=given.last_sequence or None,
        sequences=frozenset(given.sequences),
        start=_utc(start),
        end=_utc(end),
    )


def _sure(request: _Request) -> Selection:
    chosen = _selection(request.filter)
    if chosen.is_all and not request.all:
        raise invalid(
            "control.no_choice", "no letter is chosen", where="filter", cure="or set `all`"
        )
    return chosen


def _utc(nanoseconds: int | None) -> datetime | None:
    """A time as letters have it, to the microsecond."""
    return None if nanoseconds is None else _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _key(head: Head) -> str:
    """What letters are ordered by; a stream of the same name may have been made again."""
    return f"{head.sink} {head.stream} {head.sequence:020} {incarnation(head.created)}"


def _shown(head: Head) -> cdc_pb2.DeadLetter:
    return cdc_pb2.DeadLetter(
        name=f"sinks/{head.sink}/streams/{head.stream}/deadLetters/{head.sequence}",
        sink=head.sink,
        stream=head.stream,
        sequence=head.sequence,
        state=_STATES[head.state],
        topic=topic_of(head.subject),
        partition=partition_of(head.subject),
        key=head.key or "",
        attempts=head.attempts,
        failure_time=timestamp(to_nanoseconds(head.failed_at) if head.failed_at else 0),
        error_code=head.reason.code,
        error=head.reason.message,
    )
