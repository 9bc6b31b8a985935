"""Keeps changes of tables that were not asked for out of the chunks.

A publication may carry more than the patterns take: `FOR ALL TABLES` includes the sinks' own
bookkeeping, and one that is not ours carries what its owner likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.postgres.setup.patterns import is_excluded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Change, TableSchema
    from connectors.contracts.source import Chunk
    from connectors.postgres.setup.patterns import TablePattern


class TableFilter:
    """Remembers for each table whether it is wanted.

    Args:
        patterns: What is wanted; empty: everything but the excluded schemas.
    """

    def __init__(self, patterns: Sequence[TablePattern]) -> None:
        self._patterns = patterns
        # By identity: a table's schema is one object for as long as its shape lasts, and hashing
        # its contents for each change would cost more than decoding it. The value keeps it alive.
        self._known: dict[int, tuple[bool, TableSchema | None]] = {}

    def apply(self, chunk: Chunk) -> None:
        """Take unwanted changes out; a transaction's last mark moves to the last change left."""
        known = self._known
        for table in {id(change.table): change.table for change in chunk.changes}.values():
            if id(table) not in known:
                known[id(table)] = (self._wanted(table), table)
        if all(wanted for wanted, _ in known.values()):
            return
        kept: list[Change] = []
        for change in chunk.changes:
            if known[id(change.table)][0]:
                kept.append(change)
            elif change.last and kept and kept[-1].transaction == change.transaction:
                kept[-1] = kept[-1]._replace(last=True)
        chunk.changes = kept

    def _wanted(self, table: TableSchema | None) -> bool:
        if table is None:
            return True
        if is_excluded(table.schema):
            return False
        return not self._patterns or any(
            pattern.matches(table.schema, table.name) for pattern in self._patterns
        )
