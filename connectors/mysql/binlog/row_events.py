"""The events about tables and rows, as far as they are captured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.contracts.changes import Change
from connectors.mysql.binlog import events as ev
from connectors.mysql.binlog import refusals
from connectors.mysql.binlog.payload import uncompressed_rows
from connectors.mysql.binlog.row_changes import add_rows
from connectors.row_image import assemble, tail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.mysql.binlog.chunks import ChunkBuffer
    from connectors.mysql.binlog.log_place import LogPlace
    from connectors.mysql.binlog.tables import KnownTable, Tables
    from connectors.mysql.binlog.transaction import Transaction
    from connectors.mysql.binlog.transactions import Transactions


class RowEvents:
    """Turns events about rows into changes of the open transaction.

    Those of an XA transaction are kept until it is known whether it is committed.

    Args:
        place: Where the log is being read.
        transactions: Knows the open one.
        tables: Knows the shapes of tables.
        buffer: Takes the changes.

    Attributes:
        now_ms: When the events were read, Unix time in milliseconds.
    """

    def __init__(
        self, place: LogPlace, transactions: Transactions, tables: Tables, buffer: ChunkBuffer
    ) -> None:
        self.now_ms = 0
        self._place, self._transactions = place, transactions
        self._tables, self._buffer = tables, buffer

    def table_map(self, event: bytes, end: int) -> None:
        """The shape of a table whose rows follow."""
        transaction = self._transactions.inside(event)
        if transaction.skipped:
            return
        if transaction.xa:
            transaction.kept.append(event[:end])
        else:
            self._tables.learn(event, end)

    def rows(self, event: bytes, end: int) -> None:
        """Rows that were inserted, updated or deleted."""
        transaction = self._transactions.inside(event)
        if transaction.skipped:
            return
        if transaction.xa:
            transaction.kept.append(event[:end])
            return
        known = self._tables.of_rows(event)
        if known is not None:
            self._add(transaction, known, event, end)

    def compressed_rows(self, event: bytes, end: int) -> None:
        """MariaDB's compressed form of them."""
        transaction = self._transactions.inside(event)
        if transaction.skipped or not (transaction.xa or self._tables.of_rows(event)):
            return
        whole, kind = uncompressed_rows(event, end)
        whole = whole[:4] + bytes([kind]) + whole[5:]
        self.rows(whole, len(whole))

    def partial_json(self, event: bytes, _: int) -> None:
        """Rows of whose JSON documents the log tells but what was changed."""
        transaction = self._transactions.inside(event)
        if transaction.skipped or not (transaction.xa or self._tables.of_rows(event)):
            return
        raise refusals.partial_json(str(self._place))

    def replay(self, transaction: Transaction, kept: Iterable[bytes]) -> None:
        """Decode the kept events of an XA transaction, now that it is committed."""
        for event in kept:
            if event[4] == ev.TABLE_MAP:
                self._tables.learn(event, len(event))
            elif (known := self._tables.of_rows(event)) is not None:
                self._add(transaction, known, event, len(event))

    def truncate(self, transaction: Transaction, schema: str, name: str) -> None:
        """A table was emptied."""
        if transaction.skipped or not self._tables.captured(schema, name):
            return
        table, block = self._tables.truncated(schema, name)
        stamp = transaction.stamp
        order = transaction.order = transaction.order + 1
        if order <= transaction.floor:
            return
        middle = block.middle(stamp, self._place.start)
        behind = tail("t", self.now_ms, stamp.gtid)
        envelope = assemble("null", "null", middle, 0, behind, order)
        position = f"{transaction.prefix}{order - 1:08X}"
        self._buffer.open.append(Change("t", table, position, None, stamp.gtid, False, envelope))
        self._buffer.open_bytes += len(envelope)

    def _add(self, transaction: Transaction, known: KnownTable, event: bytes, end: int) -> None:
        add_rows(
            self._buffer,
            transaction,
            known,
            event,
            end,
            offset=self._place.start,
            now_ms=self.now_ms,
        )
