"""Gathers changes into chunks that end where transactions end, wherever they can."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, DDL, Change
from connectors.contracts.source import Checkpoint, Chunk
from connectors.errors import FatalError
from connectors.mysql.binlog.position import LARGEST_TRANSACTION
from connectors.mysql.binlog.progress import Spot, encode_spots, follows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.mysql.binlog.progress import Progress

# So many sources of transactions may alternate within a chunk, that its resume state stays small
# enough for a message's header.
_MOST_RUNS = 24


class ChunkBuffer:
    """Cuts a stream of transactions into chunks.

    A transaction that fits into one chunk always lies in one. A larger one is cut, and its last
    change so far is held back until its end is seen, so that `Change.last` is always told.

    Attributes:
        open: The changes of the transaction that is being read, as far as they are not in a chunk.
        open_bytes: The size of their envelopes.
        cut_off: True when a part of that transaction is in a chunk already.

    Args:
        source: The source's name.
        position: Of the last change that is stored.
        progress: What is complete.
    """

    def __init__(self, source: str, position: str, progress: Progress) -> None:
        self.open: list[Change] = []
        self.open_bytes = 0
        self.cut_off = False
        self._source = source
        self._progress = progress
        self._position = position
        self._spot: Spot | None = None
        self._complete: list[Change] = []
        self._complete_bytes = 0
        self._spots: list[Spot] = []
        self._runs = 0
        self._ready: deque[Chunk] = deque()
        self._saved = progress.state()
        self._moved = False

    @property
    def pending(self) -> int:
        """How many changes wait here."""
        ready = sum(len(chunk.changes) for chunk in self._ready)
        return ready + len(self._complete) + len(self.open)

    @property
    def boundary(self) -> bool:
        """True when all that is stored ends with a transaction, and nothing complete waits."""
        return not (self.cut_off or self._ready or self._complete or self._progress.partial)

    @property
    def full(self) -> bool:
        """True when chunks must be taken before more is fed."""
        return len(self._ready) > 1

    def begin(self, spot: Spot) -> None:
        """A transaction begins."""
        self._spot = spot
        self.cut_off = False

    def cut(self) -> None:
        """Put the open transaction, which is too large for a chunk, into one up to its last change.

        Nothing happens to a single change: a chunk holds at least one. A statement that has the
        position of the change behind it stays with that.
        """
        self._close()
        if len(self.open) < 2 or self._spot is None:
            return
        end = len(self.open) - 1
        position = self.open[end].position
        while end and self.open[end - 1].position == position:
            end -= 1
        if not end:
            return
        # The reader keeps appending to this very list.
        given, self.open[:] = self.open[:end], self.open[end:]
        self._ready.append(self._chunk(given, [self._spot], inside=True))
        self.open_bytes = sum(len(change.envelope) for change in self.open)
        self.cut_off = True

    def undo(self, kept: int) -> None:
        """Take the open transaction's changes behind the first `kept` ones back.

        Statements do not count: those before a change that is kept stay.
        """
        end = 0
        for index, change in enumerate(self.open):
            if not kept:
                break
            if change.op != DDL:
                kept, end = kept - 1, index + 1
        del self.open[end:]
        self.open_bytes = sum(len(change.envelope) for change in self.open)

    def commit(self, file: str, *, stored: bool) -> None:
        """The open transaction is complete.

        Args:
            file: The file it lies in.
            stored: Whether changes of it are stored already, so that it must not be read again.
        """
        spot = self._spot
        if spot is None:
            return
        if self.open:
            last = self.open[-1]
            # Not `Change(...)`, whose own `__new__` is a Python function.
            self.open[-1] = tuple.__new__(Change, (*last[:5], True, *last[6:]))
            new_run = not self._spots or not follows(spot, self._spots[-1])
            if (
                len(self._complete) + len(self.open) > CHUNK_CHANGES
                or self._complete_bytes + self.open_bytes > CHUNK_BYTES
                or self._runs + new_run > _MOST_RUNS
            ):
                self._close()
                new_run = True
            self._complete += self.open
            self._complete_bytes += self.open_bytes
            self._spots.append(spot)
            self._runs += new_run
            self.open.clear()
            self.open_bytes = 0
        elif stored and self._complete:
            self._spots.append(spot)
            self._runs += 1
        self._progress.done(spot.gtid, file, spot.offset)
        self._moved = True
        if stored and not self._complete:
            # nothing waits that a later state would skip
            self._saved = self._progress.state()
        self._spot = None
        self.cut_off = False
        if len(self._complete) >= CHUNK_CHANGES or self._complete_bytes >= CHUNK_BYTES:
            self._close()

    def take(self, *, idle: bool) -> Chunk | None:
        """The next chunk: a full one, or when `idle` also one of what is complete."""
        if not self._ready and idle:
            self._close()
        return self._ready.popleft() if self._ready else None

    def advance(self) -> Chunk | None:
        """An empty chunk, if nothing else waits to be taken and the state has moved."""
        if self._ready or self._complete or not self._moved or self.cut_off:
            return None
        return self._chunk([], [])

    def place(self, prefix: str) -> tuple[str, int]:
        """Where rows that are read beside the log may stand: at a `boundary`.

        One byte before the place at which the next transaction may begin: nothing else has it.

        Args:
            prefix: What positions begin with that stand there.

        Returns:
            The same, and the index of the first one.

        Raises:
            FatalError: `mysql.snapshot_too_large`: there are no indexes left here.
        """
        index = 0
        if self._position.startswith(prefix):
            index = int(self._position[len(prefix) :], 16) + 1
        if index + CHUNK_CHANGES >= LARGEST_TRANSACTION:
            raise FatalError(
                "mysql.snapshot_too_large",
                "more than 4 billion rows were read while nothing was written to the server's log",
                cure="write anything to the database, and start the flow again: it goes on",
            )
        return prefix, index

    def insert(self, changes: list[Change], more: Mapping[str, str]) -> Chunk:
        """A chunk of rows that were read beside the log, at a `boundary`.

        Args:
            changes: Their positions are those of `place`.
            more: What the state holds besides from now on.
        """
        self._progress.more = dict(more)
        self._moved = True
        return self._chunk(changes, [])

    def _close(self) -> None:
        if self._complete:
            self._ready.append(self._chunk(self._complete, self._spots))
            self._complete, self._spots = [], []
            self._complete_bytes = self._runs = 0

    def _chunk(self, changes: list[Change], spots: list[Spot], *, inside: bool = False) -> Chunk:
        resume = _with_spots(self._saved, spots)
        if self._moved:
            self._saved = self._progress.state()
            self._moved = False
        if changes:
            self._position = changes[-1].position
        state = _with_spots(self._saved, spots) if inside else self._saved
        return Chunk(self._source, changes, Checkpoint(self._position, state), resume)


def _with_spots(state: dict[str, str], spots: list[Spot]) -> dict[str, str]:
    return {**state, "inside": encode_spots(spots)} if spots else state
