"""Dead letters by way of the control service, for `waxtap dlq --server`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.letters import State
from control.cli.output import exact
from control.cli.stored import moment
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc

if TYPE_CHECKING:
    from control.cli.client import Service
    from control.letters.selection import Selection

_LARGEST_PAGE = 1000
_STATES = {
    State.FAILED: cdc_pb2.LETTER_STATE_FAILED,
    State.PARKED: cdc_pb2.LETTER_STATE_PARKED,
    State.SKIPPED: cdc_pb2.LETTER_STATE_SKIPPED,
}


def listed(
    service: Service, chosen: Selection, limit: int, *, whole: bool = False
) -> tuple[list[dict[str, object]], int]:
    """What is told of letters, at most so many, and how many there are.

    Args:
        service: Where the control service is.
        chosen: Which.
        limit: How many at most.
        whole: With the changes.

    Raises:
        WaxtapError: As `Service.channel`.
    """
    found: list[dict[str, object]] = []
    with service.channel() as channel:
        stub = cdc_pb2_grpc.DeadLetterServiceStub(channel)
        request = cdc_pb2.ListDeadLettersRequest(
            filter=_filter(chosen), page_size=min(limit, _LARGEST_PAGE)
        )
        while True:
            answer = stub.ListDeadLetters(request)
            for letter in answer.dead_letters[: limit - len(found)]:
                told = _told(letter)
                if whole:
                    named = cdc_pb2.GetDeadLetterRequest(name=letter.name)
                    payload = b"".join(piece.data for piece in stub.ReadDeadLetterPayload(named))
                    told["change"] = exact(payload.decode())
                found.append(told)
            request.page_token = answer.next_page_token
            if not request.page_token or len(found) >= limit:
                return found, answer.total_size


def replayed(service: Service, chosen: Selection, *, sure: bool) -> dict[str, object]:
    """Have letters delivered once more; returns what came of it. Raises as `listed`."""
    with service.channel() as channel:
        stub = cdc_pb2_grpc.DeadLetterServiceStub(channel)
        request = cdc_pb2.ReplayDeadLettersRequest(filter=_filter(chosen), all=sure)
        done = stub.ReplayDeadLetters(request)
    return {
        "replayed": done.replayed,
        "failed": done.refused,
        "waiting": done.waiting,
        "unanswered": done.unanswered,
        "error": done.error,
    }


def discarded(service: Service, chosen: Selection, *, sure: bool) -> dict[str, object]:
    """Have letters deleted; returns what came of it. Raises as `listed`."""
    with service.channel() as channel:
        stub = cdc_pb2_grpc.DeadLetterServiceStub(channel)
        request = cdc_pb2.DiscardDeadLettersRequest(filter=_filter(chosen), all=sure)
        done = stub.DiscardDeadLetters(request)
    return {"discarded": done.discarded, "unanswered": done.unanswered}


def _filter(chosen: Selection) -> cdc_pb2.DeadLetterFilter:
    found = cdc_pb2.DeadLetterFilter(
        sink=chosen.sink,
        source=chosen.source,
        topic=chosen.topic,
        partition=chosen.partition,
        key=chosen.key,
        ops=sorted(chosen.ops),
        text=chosen.text,
        states=[_STATES[state] for state in chosen.states],
        error=chosen.error,
        first_sequence=chosen.first,
        last_sequence=chosen.last or 0,
    )
    if chosen.start is not None:
        found.start_time.FromDatetime(chosen.start)
    if chosen.end is not None:
        found.end_time.FromDatetime(chosen.end)
    return found


def _told(letter: cdc_pb2.DeadLetter) -> dict[str, object]:
    state = cdc_pb2.LetterState.Name(letter.state)
    return {
        "sink": letter.sink,
        "stream": letter.stream,
        "id": letter.sequence,
        "state": state.removeprefix("LETTER_STATE_").lower(),
        "topic": letter.topic,
        "key": exact(letter.key) if letter.key else None,
        "attempts": letter.attempts,
        "failed_at": moment(letter.failure_time),
        "code": letter.error_code,
        "error": letter.error,
    }
