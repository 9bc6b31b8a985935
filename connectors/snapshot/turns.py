"""A source's log and the rows of its tables, which take turns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, Protocol

from connectors.snapshot.reading import AnyTable, Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.source import Checkpoint, Chunk
    from connectors.snapshot.runs import Runs

# Neither holds the other up: the tables' turn lasts so long, since a small chunk waits until what
# is under way is stored; a log that is behind, which chunks of so many changes tell, has so many
# turns in a row.
_ROWS_S = 0.05
_BEHIND = 500
_TURNS = 4


class Pacing:
    """Whose turn it is."""

    def __init__(self) -> None:
        # How many chunks of the log come before the next rows of a table.
        self._turns = 0
        self._looked_at = 0.0

    @property
    def rows_first(self) -> bool:
        """Whether rows come before the next chunk of the log."""
        return self._turns <= 0

    def looked(self, chunk: Chunk | None) -> None:
        """The log was looked at; this is what it gave."""
        behind = chunk is not None and len(chunk.changes) >= _BEHIND
        self._turns -= 1 if behind else _TURNS
        self._looked_at = time.monotonic()

    def gave(self) -> None:
        """Rows were given out."""
        if time.monotonic() - self._looked_at > _ROWS_S:
            self._turns = _TURNS


class ReadLog(Log, Protocol):
    """A log that tells how far it is read."""

    @property
    def boundary(self) -> bool:
        """Whether rows may be put in here: between transactions, with nothing complete waiting."""
        ...

    @property
    def reached(self) -> int:
        """Up to which place everything was decoded, as `Block.log_end` counts it."""
        ...

    def chunk(self, *, idle: bool) -> Chunk | None:
        """The next chunk of the log; when `idle` also one that is not full."""
        ...


class Turns(Generic[AnyTable]):
    """Gives out rows of tables between the chunks of a log, until there are no more.

    Args:
        snapshot: Reads the tables; None: that is not wanted, or done.

    Attributes:
        final: The checkpoint with which the last row is stored; None: there is none yet.
    """

    def __init__(self, snapshot: Runs[AnyTable] | None) -> None:
        self.final: Checkpoint | None = None
        self._snapshot = snapshot
        self._pacing = Pacing()

    @property
    def reading(self) -> bool:
        """Whether rows of a table wait to be given out."""
        return self._snapshot is not None and self._snapshot.ready

    def next(self, log: ReadLog, changes: Callable[[], Chunk | None]) -> Chunk | None:
        """The next chunk of either; None: there is none now.

        Args:
            log: What decodes the log.
            changes: Takes the log's next chunk.
        """
        if self._snapshot is None:
            return changes()
        chunk = self._rows(self._snapshot, log) if self._pacing.rows_first else None
        if chunk is None:
            chunk = self._noted(changes())
            self._pacing.looked(chunk)
        if chunk is None:
            chunk = self._rows(self._snapshot, log)
        return chunk

    def interrupt(self) -> None:
        """As `Snapshot.interrupt`."""
        if self._snapshot is not None:
            self._snapshot.interrupt()

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        if self._snapshot is not None:
            self._snapshot.close()

    def _rows(self, snapshot: Runs[AnyTable], log: ReadLog) -> Chunk | None:
        """The next rows of a table; or, where the log must come first, its next chunk."""
        snapshot.work()
        if not snapshot.due(log.reached):
            return None
        if not log.boundary:
            return self._noted(log.chunk(idle=True))
        chunk = snapshot.give(log)
        self._pacing.gave()
        if snapshot.done:
            snapshot.close()
            self._snapshot = None
            if chunk is not None:
                self.final = chunk.checkpoint
        return chunk

    def _noted(self, chunk: Chunk | None) -> Chunk | None:
        if chunk is not None and self._snapshot is not None:
            self._snapshot.note(chunk.changes)
        return chunk
