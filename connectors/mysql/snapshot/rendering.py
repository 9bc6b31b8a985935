"""Rows of a table to changes, equal to those that the log makes of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.errors import FatalError
from connectors.mysql.binlog.envelope import SourceBlock
from connectors.mysql.snapshot.splicing import splicer, values_of
from connectors.row_image import snapshot_tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.mysql.binlog.table import Table
    from connectors.mysql.snapshot.queries import Paging
    from connectors.mysql.snapshot.row_store import RowStore
    from connectors.mysql.snapshot.tables import Described

# What a message has besides its payload, as the stream's writer reckons it.
_OVERHEAD = 400


class TableRenderer:
    """Makes changes of the rows of one version of a table's shape.

    Args:
        described: What the catalog said.
        table: The same as the log would have it.
        paging: How it is read.
        zero_dates: As in `values.render`.
        mark: What `source.snapshot` is of rows that are neither the first nor the last.

    Attributes:
        described: As given.
        paging: As given.
    """

    def __init__(
        self,
        described: Described,
        table: Table,
        paging: Paging,
        *,
        zero_dates: bool,
        mark: str = "true",
    ) -> None:
        self.described, self.paging = described, paging
        self._mark = mark
        self._table = table
        zerofill = [column.zerofill for column in described.columns]
        self._splice = splicer(table, zerofill, zero_dates=zero_dates)
        schema = table.schema
        self._place = (schema.dialect, schema.source, schema.schema, schema.name)
        self._blocks: dict[str, SourceBlock] = {}

    def after(self, store: RowStore, row: int) -> tuple[str, ...]:
        """What a row is found by; empty: nothing, as the table has no key."""
        data, (start,) = store.read(row, 1)
        paging = self.paging
        return paging.stored(values_of(data, start, paging.values)) if paging.places else ()

    def render(
        self,
        store: RowStore,
        start: int,
        *,
        place: tuple[str, int],
        read: tuple[int, str, int],
        first: bool,
        last: bool,
        outdated: Callable[[Change], bool] | None,
    ) -> tuple[list[Change], int]:
        """Make changes of as many rows as one chunk may hold.

        Args:
            store: The rows.
            start: The first one that is wanted.
            place: What positions begin with, and the index of the first one behind it.
            read: When the rows were read, Unix time in milliseconds; and behind which file and
                offset of the log.
            first: The first of them is the snapshot's first row.
            last: The last row is the snapshot's last row.
            outdated: Whether a row is to be left out; None: none is.

        Returns:
            The changes, and the number of the first row that was not used.

        Raises:
            FatalError: A row does not fit the table, or holds undecodable text.
        """
        prefix, index = place
        end = snapshot_tail(time.time_ns() // 1_000_000)
        usual, final = self._middle(self._mark, read) + end, len(store) - 1 if last else -1
        schema, splice, new = self._table.schema, self._splice, tuple.__new__
        changes: list[Change] = []
        data, starts = store.read(start, CHUNK_CHANGES)
        text = str(data, "latin-1")
        size, at = 0, start
        for begin in starts:
            try:
                after, key, json_nulls = splice(data, text, begin)
            except (ValueError, KeyError, IndexError):
                raise self._unreadable() from None
            behind = usual
            if at == final:
                behind = self._middle("last", read) + end
            elif first and at == start:
                behind = self._middle("first", read) + end
            envelope = f'{{"before":null,"after":{after}{behind}}}'.encode("latin-1")
            size += len(envelope) + len(key or "") + _OVERHEAD
            if size > CHUNK_BYTES and at > start:
                break
            at += 1
            # Not `Change(...)`, whose own `__new__` is a Python function.
            position = f"{prefix}{index:08X}"
            told = ("r", schema, position, key, "", True, envelope, (), json_nulls, "")
            change = new(Change, told)
            if outdated is None or not outdated(change):
                changes.append(change)
                index += 1
        return changes, at

    def _unreadable(self) -> FatalError:
        return FatalError(
            "mysql.unexpected_row",
            "a row holds what its table does not promise",
            where=self._table.label,
            cure="restart the flow; nothing was lost",
        )

    def _middle(self, mark: str, read: tuple[int, str, int]) -> str:
        block = self._blocks.get(mark)
        if block is None:
            block = self._blocks[mark] = SourceBlock(*self._place, mark)
        return block.read(*read)
