"""Messages as they are stored.

Streams are asked for what is new a few times a second; nothing is left on the server. A reader that
is slow is not waited for with anything in memory: the next piece is read when it asks for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from control.explorer.streams import streams
from control.explorer.timestamps import to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets, Raw
    from control.explorer.lanes import Lookup
    from control.explorer.messages import Message
    from control.explorer.streams import Stream
    from control.explorer.wanted import Wanted

# So many are read at once of each stream, and no more bytes than that.
_PIECE, _MOST_BYTES = 256, 4 * 1024 * 1024
# How soon a stream is seen that is new.
_LOOK_EVERY = 2.0


class Tail:
    """Gives what is stored from now on. Used by one thread at a time.

    Args:
        connection: To NATS.
        reads: Reads stored messages.
        wanted: Which messages.
        look: Makes of them what is shown.
        since: The streams as they were before the first one that is given.
    """

    def __init__(
        self,
        connection: Connection,
        reads: DirectGets,
        wanted: Wanted,
        look: Lookup,
        since: Sequence[Stream],
    ) -> None:
        self._connection, self._reads = connection, reads
        self._wanted, self._look = wanted, look
        self._next: dict[tuple[str, str], int] = {}
        self._created: dict[str, str] = {}
        self._looked = time.monotonic()
        for stream in since:
            self._follow(stream, stream.state.last_seq + 1)

    def next(self) -> list[Message]:
        """What is new, up to 256 messages of each stream, by the time of storing; empty: nothing.

        Raises:
            RetryableError: NATS does not answer.
        """
        self._look_for_streams()
        pending = [
            (
                lane,
                self._reads.start(
                    lane[0],
                    {
                        "seq": sequence,
                        "next_by_subj": lane[1],
                        "batch": _PIECE,
                        "max_bytes": _MOST_BYTES,
                    },
                ),
            )
            for lane, sequence in self._next.items()
        ]
        found: list[tuple[int, str, Raw]] = []
        for lane, each in pending:
            for raw in each.result():
                self._next[lane] = raw.sequence + 1
                found.append((to_nanoseconds(raw.time), lane[0], raw))
        found.sort(key=lambda each: each[:2])
        shown = [self._look(stream, raw) for _, stream, raw in found]
        return [message for message in shown if message is not None]

    def _look_for_streams(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for stream in streams(self._connection, self._wanted.source):
            if self._created.get(stream.name) != stream.created:
                self._follow(stream, 1)

    def _follow(self, stream: Stream, sequence: int) -> None:
        self._created[stream.name] = stream.created
        for subjects in self._wanted.subjects(stream.source):
            self._next[stream.name, subjects] = sequence
