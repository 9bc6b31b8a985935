"""Debezium's envelope of a record's change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.contracts.changes import Change
from connectors.json_text import json_string, product_version
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
        self._table, self._id = table, name
        self._poll, self._last = head.poll, head.changes - 1
        self._middle = (
            f',"source":{{"version":{json_string(product_version())},"connector":"rest",'
            f'"name":{json_string(table.source)},"ts_ms":{head.at_ms},"snapshot":"false",'
            f'"schema":{json_string(table.schema)},"table":{json_string(table.name)},'
            f'"poll":{head.poll},"index":'
        ).encode("latin-1")
        self._ends = {
            op: (
                f'}},"op":"{op}","ts_ms":{now_ms},"transaction":{{"id":"{name}","total_order":'
            ).encode()
            for op in "cud"
        }

    def change(self, index: int, found: Found) -> Change:
        """The change with this index in the poll."""
        before = found.key.encode() if found.op == "d" else NULL
        envelope = b'{"before":%b,"after":%b%b%d%b%d}}' % (
            before, found.record, self._middle, index, self._ends[found.op], index + 1,
        )  # fmt: skip
        return Change(
            found.op,
            self._table,
            position(self._poll, index),
            found.key,
            self._id,
            index == self._last,
            envelope,
        )
