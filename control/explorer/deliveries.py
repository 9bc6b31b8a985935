"""What became of messages at the sinks that read them."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream import api
from connectors.jetstream.letters import STREAM, incarnation, letter_subject, read_head
from connectors.letters import State
from control.explorer.asking import BATCHES, MOST_BYTES, Question, answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets
    from connectors.letters import Head
    from control.explorer.messages import Message
    from control.explorer.progress import Place, Places
    from control.explorer.readers import Reader
    from control.explorer.streams import Stream

# So many subjects may one request name.
_AT_ONCE = 500
# What deliveries of a page take at most, and each of them beside its sink and its error.
_MOST_BYTES, _BESIDE = 6 * 1024 * 1024, 16


class Fate(Enum):
    """What became of a message at a sink."""

    UNKNOWN = "unknown"  # its target cannot be asked, and nothing tells that it has the message
    UNSENT = "unsent"
    SENT = "sent"
    FAILED = "failed"  # it is a dead letter
    PARKED = "parked"  # it waits behind a dead letter


class Delivery(NamedTuple):
    """What became of a message at one sink.

    Attributes:
        sink: The sink's name.
        fate: What.
        error: Of a dead letter: its code and what it says.
    """

    sink: str
    fate: Fate
    error: str = ""


class Deliveries:
    """Tells what became of messages. Usable from any thread.

    Args:
        connection: To NATS.
        reads: Reads stored messages.
        places: How far sinks are.
    """

    def __init__(self, connection: Connection, reads: DirectGets, places: Places) -> None:
        self._connection, self._reads, self._places = connection, reads, places

    def of(
        self, messages: Sequence[Message], readers: Sequence[Reader], streams: Sequence[Stream]
    ) -> list[list[Delivery]]:
        """For each message what became of it at each sink that reads it.

        Args:
            messages: Of any of the streams.
            readers: The sinks.
            streams: Those that the messages lie in, at least.

        Raises:
            RetryableError: NATS does not answer.
        """
        used = {message.stream for message in messages}
        by_name = {stream.name: stream for stream in streams if stream.name in used}
        places = self._places.of(readers, list(by_name.values()))
        # Letters are read behind the places: one that was stored before its offset moved is seen.
        letters = self._letters(messages, places, by_name)
        return [
            [
                delivery(reader.name, message.subject, message.sequence, place, letters.get(
                    (reader.name, message.stream, message.sequence)
                ))
                for reader in readers
                if (place := places.get((reader.name, message.stream))) is not None
                and reader.reads(message.source, message.subject)
                and message.sink in ("", reader.name)
            ]
            for message in messages
        ]  # fmt: skip

    def _letters(
        self,
        messages: Sequence[Message],
        places: Iterable[tuple[str, str]],
        streams: Mapping[str, Stream],
    ) -> dict[tuple[str, str, int], Head]:
        info = api.stream_info(self._connection, STREAM)
        if info is None or not info.state.messages:
            return {}
        wanted = [
            letter_subject(sink, stream, streams[stream].created, message.sequence)
            for sink, stream in places
            for message in messages
            if message.stream == stream
        ]
        parts = [wanted[at : at + _AT_ONCE] for at in range(0, len(wanted), _AT_ONCE)]
        asked = deque((part, _letters(part, 1)) for part in parts)
        found: dict[tuple[str, str, int], Head] = {}
        for part, got in answers(self._reads, asked, BATCHES):
            # Letters are whole rows: the server sends so many bytes at once, and no more.
            if got and got[-1].pending:
                asked.appendleft((part, _letters(part, got[-1].sequence + 1)))
            for raw in got:
                if (head := read_head(raw.subject, raw.header)) is not None:
                    found[head.sink, head.stream, head.sequence] = head
        return found


def _letters(subjects: Sequence[str], first: int) -> Question:
    """Asks for the letters on these subjects, from a sequence on."""
    return Question(
        STREAM,
        {"multi_last": subjects, "seq": first, "batch": _AT_ONCE, "max_bytes": MOST_BYTES},
    )


def told_in_full(deliveries: Sequence[Sequence[Delivery]]) -> int:
    """How many messages come before what is told of them is too much for an answer; 1 at least."""
    size = 0
    for count, of_one in enumerate(deliveries):
        size += sum(len(each.error.encode()) + len(each.sink) + _BESIDE for each in of_one)
        if size > _MOST_BYTES:
            return max(count, 1)
    return len(deliveries)


def delivery(sink: str, subject: str, sequence: int, place: Place, letter: Head | None) -> Delivery:
    """What became of a message at a sink, free of I/O."""
    if letter is not None:
        fate = Fate.PARKED if letter.state is State.PARKED else Fate.FAILED
        reason = letter.reason
        return Delivery(sink, fate, f"[{reason.code}] {reason.message}" if reason.code else "")
    upto = place.upto(subject)
    if upto is not None and sequence <= upto:
        return Delivery(sink, Fate.SENT)
    return Delivery(sink, Fate.UNSENT if place.exact else Fate.UNKNOWN)


def same_stream(head: Head, stream: Stream) -> bool:
    """Whether a letter's message lies in this very stream."""
    return head.stream == stream.name and incarnation(head.created) == incarnation(stream.created)
