"""Debezium's envelope of a record's change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors import json_rows
from connectors.contracts.changes import Change
from connectors.rest.outcome import position

if TYPE_CHECKING:
    from connectors.contracts.changes import TableSchema
    from connectors.rest.outcome import Found, Head

NULL = b"null"


class Envelopes:
    """Makes the changes of one poll.

    Args:
        table: The records' shape.
        name: Under which the poll's outcome is stored: the id of the transaction.
        head: The poll's.
        now_ms: When its changes are handed on, Unix time in milliseconds.
    """

    def __init__(self, table: TableSchema, name: str, head: Head, now_ms: int) -> None:
        self._table, self._id, self._head, self._now_ms = table, name, head, now_ms
        self._last = head.changes - 1
        self._envelopes = json_rows.Envelopes("rest", table.source, table.schema, table.name)

    def change(self, index: int, found: Found) -> Change:
        """The change with this index in the poll."""
        poll = self._head.poll
        envelope = self._envelopes.envelope(
            found.op,
            found.key.encode() if found.op == "d" else None,
            found.record,
            happened_ms=self._head.at_ms,
            now_ms=self._now_ms,
            transaction=self._id,
            order=index + 1,
            more=b',"poll":%d,"index":%d' % (poll, index),
        )
        return Change(
            found.op,
            self._table,
            position(poll, index),
            found.key,
            self._id,
            index == self._last,
            envelope,
        )
