"""Gathers changes into chunks that end where transactions end, wherever they can."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.contracts.source import Checkpoint, Chunk
from connectors.errors import FatalError
from connectors.postgres.pgoutput.lsn import format_lsn, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Mapping

_INDEXES = 1 << 32


class ChunkBuffer:
    """Cuts a stream of transactions into chunks.

    A transaction that fits into one chunk always lies in one. A larger one is cut, and its last
    change so far is held back until its commit is seen, so that `Change.last` is always told.

    Attributes:
        open: The changes of the transaction that is being read, as far as they are not in a chunk.
        open_bytes: The size of their envelopes.
        lsn: What may be confirmed: the end of the last complete transaction. Never goes back.

    Args:
        source: The source's name.
        system: The server's system identifier.
        resume: Where the source goes on; None: from the beginning.
    """

    def __init__(self, source: str, system: str, resume: Checkpoint | None) -> None:
        self.open: list[Change] = []
        self.open_bytes = 0
        self._source = source
        self._system = system
        self._complete: list[Change] = []
        self._complete_bytes = 0
        self._ready: deque[Chunk] = deque()
        self._cut = False
        self._position = resume.position if resume else ""
        # What the state holds besides, such as how far a snapshot is.
        self._more = {
            key: value
            for key, value in (resume.state if resume else {}).items()
            if key not in ("lsn", "system")
        }
        self.lsn = parse_lsn(resume.state["lsn"]) if resume and "lsn" in resume.state else 0
        self._saved_lsn = self.lsn
        self._saved_state = dict(resume.state) if resume else self._state()

    @property
    def pending(self) -> int:
        """How many changes wait here."""
        ready = sum(len(chunk.changes) for chunk in self._ready)
        return ready + len(self._complete) + len(self.open)

    @property
    def boundary(self) -> bool:
        """True when all that was given out ends with a transaction, and nothing complete waits."""
        return not self._cut and not self._ready and not self._complete

    @property
    def full(self) -> bool:
        """True when chunks must be taken before more is fed."""
        return len(self._ready) > 1

    def add(self, change: Change) -> None:
        """Append to the open transaction."""
        self.open.append(change)
        self.open_bytes += len(change.envelope)
        if self.open_bytes > CHUNK_BYTES or len(self.open) > CHUNK_CHANGES:
            self.cut()

    def cut(self) -> None:
        """Put the open transaction, which is too large for a chunk, into one up to its last change.

        Nothing happens to a single change: a chunk holds at least one.
        """
        self._close()
        if len(self.open) < 2:
            return
        last = self.open.pop()
        self._cut = True
        self._ready.append(self._chunk(self.open[:]))
        # The reader keeps appending to this very list.
        self.open[:] = [last]
        self.open_bytes = len(last.envelope)

    def commit(self, end_lsn: int) -> None:
        """The open transaction is complete.

        Args:
            end_lsn: Where the log goes on behind it.
        """
        if self.open:
            last = self.open[-1]
            self.open[-1] = Change(*last[:5], True, *last[6:])
            if (
                len(self._complete) + len(self.open) > CHUNK_CHANGES
                or self._complete_bytes + self.open_bytes > CHUNK_BYTES
            ):
                self._close()
            self._complete += self.open
            self._complete_bytes += self.open_bytes
            self.open.clear()
            self.open_bytes = 0
        self._cut = False
        self.advance_to(end_lsn)
        if len(self._complete) >= CHUNK_CHANGES or self._complete_bytes >= CHUNK_BYTES:
            self._close()

    def advance_to(self, lsn: int) -> None:
        """Everything before `lsn` has been seen; no transaction may be open."""
        if lsn > self.lsn:
            self.lsn = lsn

    def take(self, *, idle: bool) -> Chunk | None:
        """The next chunk: a full one, or when `idle` also one of what is complete."""
        if not self._ready and idle:
            self._close()
        return self._ready.popleft() if self._ready else None

    def advance(self) -> Chunk | None:
        """An empty chunk, if nothing else waits to be taken and there is more to confirm."""
        if self._ready or self._complete or self.lsn == self._saved_lsn:
            return None
        return self._chunk([])

    def place(self) -> tuple[str, int]:
        """Where rows that are read beside the log may stand: at a `boundary`, behind all of it.

        One byte before the place at which the next transaction may begin: nothing else has it but
        a message outside a transaction, whose index is 0.

        Returns:
            What their positions begin with, and their first one's index.

        Raises:
            FatalError: `postgres.snapshot_too_large`: there are no indexes left here.
        """
        prefix = f"{self.lsn - 1:016X}-"
        index = 1
        if self._position.startswith(prefix):
            index = int(self._position[len(prefix) :], 16) + 1
        if index + CHUNK_CHANGES >= _INDEXES:
            raise FatalError(
                "postgres.snapshot_too_large",
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
        resume = self._saved_state
        self._more = {**self._more, **more}
        self._saved_lsn, self._saved_state = self.lsn, self._state()
        if changes:
            self._position = changes[-1].position
        return Chunk(self._source, changes, Checkpoint(self._position, self._saved_state), resume)

    def _close(self) -> None:
        if self._complete:
            self._ready.append(self._chunk(self._complete))
            self._complete = []
            self._complete_bytes = 0

    def _chunk(self, changes: list[Change]) -> Chunk:
        resume = self._saved_state
        if self.lsn != self._saved_lsn:
            self._saved_lsn, self._saved_state = self.lsn, self._state()
        if changes:
            self._position = changes[-1].position
        return Chunk(self._source, changes, Checkpoint(self._position, self._saved_state), resume)

    def _state(self) -> dict[str, str]:
        return {"lsn": format_lsn(self.lsn), "system": self._system, **self._more}
