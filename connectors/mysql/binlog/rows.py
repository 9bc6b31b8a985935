"""Rows events to JSON, the obviously right way: take the values apart, then render each.

JSON text is passed around as byte text (see `json_text`).
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, NamedTuple

from connectors.contracts.changes import UNAVAILABLE
from connectors.errors import FatalError
from connectors.json_text import ascii_json, byte_text
from connectors.mysql.binlog.cursor import Cursor
from connectors.mysql.binlog.events import (
    DELETE_ROWS,
    DELETE_ROWS_V1,
    HEADER_SIZE,
    UPDATE_ROWS,
    UPDATE_ROWS_V1,
    WRITE_ROWS,
    WRITE_ROWS_V1,
    malformed,
)
from connectors.mysql.binlog.types import Kind
from connectors.mysql.binlog.values import render, take
from connectors.row_image import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from connectors.mysql.binlog.table import Table

OPS = {
    WRITE_ROWS: "c",
    WRITE_ROWS_V1: "c",
    UPDATE_ROWS: "u",
    UPDATE_ROWS_V1: "u",
    DELETE_ROWS: "d",
    DELETE_ROWS_V1: "d",
}
_NEWER = frozenset({WRITE_ROWS, UPDATE_ROWS, DELETE_ROWS})
_UNAVAILABLE_JSON = json.dumps(UNAVAILABLE)


class RowsHead(NamedTuple):
    """How the rows of an event lie.

    Attributes:
        columns: How many columns the table has.
        before: Which of them the rows before the change hold, as bits.
        after: Which of them the rows behind it hold.
        start: Where the rows begin.
    """

    columns: int
    before: int
    after: int
    start: int


# A row's values by the index of their columns; NULL is None, what the log lacks is not in it.
Row = dict[int, bytes | None]


def parse_head(event: bytes, end: int, kind: int) -> RowsHead:
    """Read what stands before the rows of an event.

    Raises:
        FatalError: `mysql.malformed_event`.
    """
    start = HEADER_SIZE + 8
    if kind in _NEWER:
        start += event[start] | event[start + 1] << 8
    if start + 3 < end and event[start] <= 8 and OPS[kind] != "u":
        # by far the most frequent form
        mask = (1 << event[start]) - 1
        bits = event[start + 1] & mask
        return RowsHead(event[start], bits, bits, start + 2)
    cursor = Cursor(event, HEADER_SIZE + 8, end)
    try:
        if kind in _NEWER:
            # partitions and the like; the length counts itself
            cursor.take(cursor.number(2) - 2)
        columns = cursor.length()
        size = (columns + 7) // 8
        before = after = cursor.number(size)
        if OPS[kind] == "u":
            after = cursor.number(size)
    except ValueError as error:
        raise malformed(event, str(error)) from None
    mask = (1 << columns) - 1
    return RowsHead(columns, before & mask, after & mask, cursor.position)


class ExactReader:
    """Reads rows by way of `values.take` and `values.render`.

    Args:
        table: Whose rows.
        zero_dates: As in `values.render`.
    """

    def __init__(self, table: Table, *, zero_dates: bool) -> None:
        self._table = table
        self._zero_dates = zero_dates
        self._names = [
            json.dumps(column.name, ensure_ascii=False) for column in table.schema.columns
        ]

    def read(self, event: bytes, end: int, op: str, head: RowsHead) -> Iterator[Image]:
        """Yield the changes of an event, one after the other.

        Raises:
            FatalError: `mysql.malformed_event`, `mysql.key_unavailable` or
                `mysql.undecodable_text`.
        """
        if head.columns != len(self._table.types):
            raise malformed(event, f"{head.columns} columns in a table of {len(self._names)}")
        data, at = event[:end], head.start
        try:
            while at < end:
                old: Row | None = None
                new: Row | None = None
                if op != "c":
                    old, at = self._row(data, at, head.before)
                if op != "d":
                    new, at = self._row(data, at, head.after)
                yield self._image(old, new)
        except (ValueError, IndexError, struct.error) as error:
            raise malformed(event, f"a row of {self._table.label}: {error}") from None

    def _row(self, data: bytes, at: int, present: int) -> tuple[Row, int]:
        indexes = [index for index in range(len(self._table.types)) if present >> index & 1]
        size = (len(indexes) + 7) // 8
        nulls = int.from_bytes(data[at : at + size], "little")
        at += size
        row: Row = {}
        for place, index in enumerate(indexes):
            if nulls >> place & 1:
                row[index] = None
            else:
                row[index], at = take(data, at, self._table.types[index])
        return row, at

    def _image(self, old: Row | None, new: Row | None) -> Image:
        before = after = "null"
        unavailable: tuple[str, ...] = ()
        json_nulls: tuple[str, ...] = ()
        if old is not None:
            before = self._object(old, sorted(old))
        if new is not None:
            # a row image that is not FULL tells only what has changed
            new = {**(old or {}), **new}
            after = self._object(new, range(len(self._names)))
            columns = self._table.schema.columns
            unavailable = tuple(c.name for index, c in enumerate(columns) if index not in new)
            json_nulls = self._json_nulls(new)
        known = new if new is not None else old or {}
        key = self._key(known) if self._table.key else None
        return Image(byte_text(before), byte_text(after), key, unavailable, json_nulls)

    def _json_nulls(self, row: Row) -> tuple[str, ...]:
        return tuple(
            column.name
            for index, (column, type_) in enumerate(
                zip(self._table.schema.columns, self._table.types, strict=True)
            )
            if type_.kind is Kind.JSON
            and (value := row.get(index)) is not None
            and render(value, type_, zero_dates=False) == "null"
        )

    def _key(self, row: Row) -> str:
        if any(index not in row for index in self._table.key):
            raise FatalError(
                "mysql.key_unavailable",
                "the log does not carry the key of a changed row",
                where=self._table.label,
                cure="let no session override binlog_row_image = FULL",
            )
        return ascii_json(self._object(row, self._table.key, zero_dates=True))

    def _object(self, row: Row, indexes: Iterable[int], *, zero_dates: bool | None = None) -> str:
        zero_dates = self._zero_dates if zero_dates is None else zero_dates
        fields = []
        for index in indexes:
            text = _UNAVAILABLE_JSON
            if index in row:
                value = row[index]
                type_ = self._table.types[index]
                text = "null" if value is None else render(value, type_, zero_dates=zero_dates)
            fields.append(f"{self._names[index]}:{text}")
        return "{" + ",".join(fields) + "}"
