"""Has dead letters delivered once more, or deleted, by the flows that hold them."""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from connectors.jetstream import letter_index
from connectors.jetstream.requests import Asking
from connectors.letters import LetterAnswer, LetterRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from connectors.jetstream.connection import Connection
    from connectors.letters import Head

Action = Literal["replay", "discard"]


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        total: Of all answers together.
        unanswered: How many requests have no answer yet; they wait for their flows, a day at most.
        letters_unanswered: How many letters these are about.
        silent: The flows that were asked.
    """

    total: LetterAnswer
    unanswered: int
    letters_unanswered: int
    silent: tuple[str, ...]


def carry_out(
    connection: Connection,
    action: Action,
    chosen: Iterable[Head],
    sinks: Collection[str],
    patience: float,
) -> Outcome:
    """Ask the flows, and wait for what they say.

    Letters that no flow holds, of a sink or a stream that is no more, are deleted at once, and
    cannot be delivered.

    Args:
        connection: To NATS.
        action: What is wanted.
        chosen: The letters; only their places are kept.
        sinks: The names of those that are configured.
        patience: Seconds without an answer after which it waits no longer.

    Raises:
        ConfigError: The server refuses the requests.
        RetryableError: NATS does not answer.
    """
    total, silent = LetterAnswer(), set[str]()
    held, unheld = _split(connection, action, sinks, chosen)
    if unheld and action == "discard":
        total.discarded += unheld
    elif unheld:
        total.failed += unheld
        total.error = "their sink, or the stream that they came from, is no more"
    with Asking(connection, connection.spec.stream.replicas) as asking:
        for (sink, stream, created), sequences in held.items():
            asking.ask(sink, stream, LetterRequest(action, created, sequences))
            silent.add(f"deliver/{sink}")
        answers, unanswered = asking.answers(patience)
    for answer in answers:
        total.replayed += answer.replayed
        total.failed += answer.failed
        total.waiting += answer.waiting
        total.discarded += answer.discarded
        total.gone += answer.gone
        total.error = total.error or answer.error
    asked = sum(map(len, held.values()))
    told = sum(
        answer.replayed + answer.failed + answer.waiting + answer.discarded + answer.gone
        for answer in answers
    )
    left = max(asked - told, 0) if unanswered else 0
    return Outcome(total, unanswered, left, tuple(sorted(silent)))


def _split(
    connection: Connection, action: Action, sinks: Collection[str], chosen: Iterable[Head]
) -> tuple[dict[tuple[str, str, str], list[int]], int]:
    """Letters that a flow holds, by sink and stream, and how many none does: those it deletes."""
    held: dict[tuple[str, str, str], array[int]] = defaultdict(lambda: array("Q"))
    streams: dict[str, str] = {}
    unheld = 0

    def without_flow() -> Iterator[Head]:
        nonlocal unheld
        for head in chosen:
            if head.stream not in streams:
                streams[head.stream] = letter_index.created(connection, head.stream)
            if head.sink in sinks and head.created == streams[head.stream]:
                held[head.sink, head.stream, head.created].append(head.sequence)
            else:
                unheld += 1
                yield head

    if action == "discard":
        letter_index.drop(connection, without_flow())
    else:
        deque(without_flow(), maxlen=0)
    return {share: sorted(held[share]) for share in sorted(held)}, unheld
