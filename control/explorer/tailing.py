"""Messages as they are stored.

Streams are asked for what is new a few times a second; nothing is left on the server. A reader that
is slow is not waited for with anything in memory: the next piece is read when it asks for it. A
piece is as small for many streams as for one.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from control.explorer.asking import BATCHES, MOST_BYTES, Question, answers
from control.explorer.streams import streams
from control.explorer.timestamps import to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets
    from control.explorer.lanes import Lookup
    from control.explorer.messages import Message
    from control.explorer.streams import Stream
    from control.explorer.wanted import Wanted

# So many are read at once of each stream, as far as previews of all of them stay below these bytes.
_PIECE, _MOST_SHOWN = 256, 8 * 1024 * 1024
# What a message takes beside its preview.
_BESIDE = 1024
# A stream that was quiet for so long (seconds) is not asked. A replica may lag behind the leader.
_QUIET = 5.0


class _Seen(NamedTuple):
    """A message that was read; sorts by the time of storing."""

    time: int
    stream: str
    sequence: int
    subjects: str
    message: Message | None


class Tail:
    """Gives what is stored from now on. Used by one thread at a time.

    Args:
        connection: To NATS.
        reads: Reads stored messages.
        wanted: Which messages.
        look: Makes of them what is shown.
        preview: How many bytes of each payload are shown.
        since: The streams as they were before the first one that is new.
        stored: What is given before.
    """

    def __init__(
        self,
        connection: Connection,
        reads: DirectGets,
        wanted: Wanted,
        look: Lookup,
        preview: int,
        since: Sequence[Stream],
        stored: Iterator[Message],
    ) -> None:
        self._connection, self._reads = connection, reads
        self._wanted, self._look, self._stored = wanted, look, stored
        self._most = max(_MOST_SHOWN // (preview + _BESIDE), 1)
        self._next: dict[tuple[str, str], int] = {}
        self._created: dict[str, str] = {}
        self._unread: set[tuple[str, str]] = set()
        # By stream, its last sequence and when that was seen first.
        self._grown: dict[str, tuple[int, float]] = {}
        for stream in since:
            self._follow(stream, stream.state.last_seq + 1)

    def next(self) -> list[Message]:
        """What comes next, by the time of storing, a piece of it; empty: nothing now.

        Raises:
            RetryableError: NATS does not answer.
        """
        if stored := list(islice(self._stored, min(_PIECE, self._most))):
            return stored
        lanes = self._stirred()
        amount = max(min(_PIECE, self._most // max(len(lanes), 1)), 1)
        asked = deque((lane, self._question(lane, amount)) for lane in lanes)
        found: list[_Seen] = []
        # Behind the end of a piece there is more, which may be older than what others have.
        end: tuple[int, str, int] | None = None
        for (stream, subjects), got in answers(self._reads, asked, BATCHES):
            for raw in got:
                moment, sequence = to_nanoseconds(raw.time), raw.sequence
                found.append(_Seen(moment, stream, sequence, subjects, self._look(stream, raw)))
            self._unread.discard((stream, subjects))
            if got and got[-1].pending:
                self._unread.add((stream, subjects))
                last = found[-1][:3]
                end = last if end is None else min(end, last)
        found.sort(key=lambda each: each[:3])
        messages: list[Message] = []
        for each in found:
            if end is not None and each[:3] > end:
                self._unread.add((each.stream, each.subjects))
                continue  # it is read again
            self._next[each.stream, each.subjects] = each.sequence + 1
            if each.message is not None:
                messages.append(each.message)
        return messages

    def _question(self, lane: tuple[str, str], amount: int) -> Question:
        stream, subjects = lane
        return Question(
            stream,
            {
                "seq": self._next[lane],
                "next_by_subj": subjects,
                "batch": amount,
                "max_bytes": MOST_BYTES,
            },
        )

    def _stirred(self) -> list[tuple[str, str]]:
        """What may have something new."""
        now = time.monotonic()
        there, stirred = set[str](), set[str]()
        for stream in streams(self._connection, self._wanted.source):
            if self._created.get(stream.name) != stream.created:
                self._follow(stream, 1)
            last, since = self._grown.get(stream.name, (-1, now))
            if last != stream.state.last_seq:
                since = now
                self._grown[stream.name] = stream.state.last_seq, now
            there.add(stream.name)
            if now - since < _QUIET:
                stirred.add(stream.name)
        return [
            lane
            for lane in self._next
            if lane[0] in stirred or (lane in self._unread and lane[0] in there)
        ]

    def _follow(self, stream: Stream, sequence: int) -> None:
        self._created[stream.name] = stream.created
        for subjects in self._wanted.subjects(stream.source):
            self._next[stream.name, subjects] = sequence
