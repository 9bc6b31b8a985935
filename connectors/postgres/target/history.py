"""From changes in stream order to the rows of history tables: one for each change.

Free of I/O. The row's columns are the source's, read from `after`, or from `before` for a delete;
what the sink tells of the change itself is in columns of its own (`layout.HISTORY`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from connectors.postgres.target.envelope import NULL, Timed, committed_at
from connectors.postgres.target.steps import Append, Row, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.changes import Delivered, TableSchema
    from connectors.postgres.target.steps import Step


class _Told(msgspec.Struct, rename=lambda name: f"_cdc_{name}", omit_defaults=True):
    """What a history row tells of its change, beside the row's columns."""

    op: str
    source: str
    sequence: int
    position: str
    transaction: str | None
    committed_at: str
    before: msgspec.Raw | None = None
    unavailable: tuple[str, ...] | None = None


class History:
    """Makes history rows; see `Collapser`, whose place it takes."""

    def __init__(self) -> None:
        self._envelope = msgspec.json.Decoder(Timed).decode
        self._encode = msgspec.json.Encoder().encode

    def collapse(self, changes: Iterable[Delivered]) -> list[Step]:
        """Return the rows to append.

        Raises:
            PermanentError: An envelope cannot be read.
        """
        appends: dict[str, Append] = {}
        for change in changes:
            table = change.table
            if table is None:  # a logical message concerns no table
                continue
            append = appends.get(table.hash)
            if append is None:
                append = appends[table.hash] = Append(table, [])
            try:
                row = self._row(change, table)
            except msgspec.MsgspecError as error:
                raise unreadable(change, table, error) from error
            append.rows.append(row)
        return list(appends.values())

    def _row(self, change: Delivered, table: TableSchema) -> Row:
        envelope = self._envelope(change.envelope)
        op, before = envelope.op, bytes(envelope.before)
        told = _Told(
            op=op,
            source=table.source,
            sequence=change.sequence,
            position=change.position,
            transaction=change.transaction or None,
            committed_at=committed_at(envelope),
            before=envelope.before if op == "u" and before != NULL else None,
            unavailable=change.unavailable or None,
        )
        row = before if op == "d" else bytes(envelope.after)
        head = self._encode(told)
        if row in (NULL, b"{}"):
            return Row(head)
        json = b"".join((head[:-1], b",", row[1:]))
        return Row(json, change.unavailable, change.json_nulls)
