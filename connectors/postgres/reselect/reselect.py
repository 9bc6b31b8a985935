"""Fills in what the log left out of a chunk, part by part, so that memory stays flat."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.contracts.source import Checkpoint, Chunk
from connectors.postgres.reselect.filling import filled

if TYPE_CHECKING:
    from connectors.contracts.changes import TableSchema
    from connectors.postgres.reselect.lookup import RowLookup

# How many changes are looked up at once is found out by the size of their values.
_FIRST = 16
# A transaction that is in the log but not visible yet: mostly for a moment.
_PAUSE_S = 0.001


class Reselect:
    """One chunk after the other goes in, and comes out in one or several parts.

    Args:
        lookup: Reads the rows.
    """

    def __init__(self, lookup: RowLookup) -> None:
        self._lookup = lookup
        self._chunk: Chunk | None = None
        self._at = 0
        self._most = _FIRST

    @property
    def pending(self) -> bool:
        """Whether a chunk went in that has not come out wholly."""
        return self._chunk is not None

    def put(self, chunk: Chunk) -> None:
        """The next chunk; none may be pending."""
        self._chunk, self._at = chunk, 0

    def take(self) -> Chunk | None:
        """The next part of the chunk; None: there is none, or not yet.

        A part that ends inside the chunk resumes there by the position of its last change.

        Raises:
            ConfigError: `postgres.select_right`.
            RetryableError: The server cannot be reached.
        """
        chunk = self._chunk
        if chunk is None:
            return None
        changes, start = chunk.changes, self._at
        end = self._end(changes, start)
        lacking = _lacking(changes[start:end])
        if not lacking:
            part = changes[start:end]
        else:
            found = self._filled(changes[start:end], lacking)
            if found is None:
                time.sleep(_PAUSE_S)
                return None
            part = found
        self._at = end
        if end < len(changes):
            inside = Checkpoint(part[-1].position, chunk.resume)
            return Chunk(chunk.source, part, inside, chunk.resume)
        self._chunk = None
        if start == 0:
            chunk.changes = part
            return chunk
        return Chunk(chunk.source, part, chunk.checkpoint, chunk.resume)

    def drop(self) -> None:
        """The log is read again from the last checkpoint: forget what is pending."""
        self._chunk = None

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self._lookup.close()

    def _end(self, changes: list[Change], start: int) -> int:
        """Where the part ends: before one more change than may be looked up at once."""
        wanted = 0
        for at in range(start, len(changes)):
            wanted += bool(changes[at].unavailable)
            if wanted > self._most:
                return at
        return len(changes)

    def _filled(
        self, changes: list[Change], lacking: dict[int, tuple[TableSchema, list[Change]]]
    ) -> list[Change] | None:
        """The changes with what they lack; None: one of them is not visible yet."""
        places: dict[str, Change] = {}
        for table, wanting in lacking.values():
            rows = self._lookup.find(table, wanting)
            if rows is None:
                return None
            for change in wanting:
                row = rows.get(change.key or "")
                if row is not None:
                    places[change.position] = filled(change, row)
        told = [places.get(change.position, change) for change in changes]
        size = sum(len(change.envelope) for change in told)
        if size > CHUNK_BYTES:
            self._most = max(self._most // 2, 1)
        elif size < CHUNK_BYTES // 4:
            self._most = min(self._most * 2, CHUNK_CHANGES)
        return told


def _lacking(changes: list[Change]) -> dict[int, tuple[TableSchema, list[Change]]]:
    """The changes that lack something and have a key, by their table's shape."""
    found: dict[int, tuple[TableSchema, list[Change]]] = {}
    for change in changes:
        if change.unavailable and change.key is not None and change.table is not None:
            found.setdefault(id(change.table), (change.table, []))[1].append(change)
    return found
