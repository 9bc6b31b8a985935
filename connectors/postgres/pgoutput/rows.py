"""Row changes to JSON, the obviously right way: parse the message, then render each value.

JSON text is passed around as byte text (see `json_text`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

from connectors.contracts.changes import UNAVAILABLE
from connectors.errors import FatalError
from connectors.json_text import ascii_json, byte_text
from connectors.postgres.pgoutput.messages import UNCHANGED, Delete, Insert, Update
from connectors.postgres.pgoutput.parser import malformed, parse
from connectors.postgres.pgoutput.streaming import XLOG_HEADER_SIZE
from connectors.postgres.pgoutput.types import Kind
from connectors.postgres.pgoutput.values import is_json_null, render
from connectors.row_image import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from connectors.postgres.pgoutput.messages import Row, Value
    from connectors.postgres.pgoutput.table import Table

UNAVAILABLE_JSON = json.dumps(UNAVAILABLE)


class RowReader(Protocol):
    """Reads the row changes of one table."""

    def read(self, frame: bytes | memoryview) -> Image:
        """Read an Insert, Update or Delete message inside its XLogData frame.

        Raises:
            FatalError: The message is malformed, or its key is not in the log.
        """
        ...

    def stored(self, values: Sequence[str | None]) -> Image:
        """Make the image of a row that was read from its table.

        Args:
            values: Of all columns, in byte text.

        Raises:
            FatalError: `postgres.unexpected_value`: a value is not in the form of its type.
        """
        ...


class ExactReader:
    """Reads row changes by way of `pgoutput.parse` and `values.render`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._all = range(len(table.types))
        self._names = [
            json.dumps(column.name, ensure_ascii=False) for column in table.schema.columns
        ]

    def read(self, frame: bytes | memoryview) -> Image:
        """As `RowReader.read`."""
        data = bytes(frame[XLOG_HEADER_SIZE:])
        match parse(data):
            case Insert(new=new):
                return self._image(data, None, "", new)
            case Update(old=old, kind=kind, new=new):
                return self._image(data, old, kind, new)
            case Delete(old=old, kind=kind):
                return self._image(data, old, kind, None)
        raise malformed(data, "it is no change of a row")

    def stored(self, values: Sequence[str | None]) -> Image:
        """As `RowReader.stored`."""
        row = tuple(None if value is None else value.encode("latin-1").decode() for value in values)
        return self._image(b"", None, "", row)

    def _image(self, data: bytes, old: Row | None, kind: str, new: Row | None) -> Image:
        for row in (old, new):
            if row is not None and len(row) != len(self._table.types):
                raise malformed(data, f"a row of {len(row)} columns in a table of {len(self._all)}")
        before = after = "null"
        unavailable: tuple[str, ...] = ()
        json_nulls: tuple[str, ...] = ()
        if old is not None:
            before = self._object(old, self._table.identity if kind == "K" else self._all)
        if new is not None:
            if old is not None:
                new = fill(new, old)
            after = self._object(new, self._all)
            unavailable = missing(self._table, new)
            json_nulls = self._json_nulls(new)
        key_row = old if new is None else new
        key = self._key(key_row) if key_row is not None and self._table.key else None
        return Image(byte_text(before), byte_text(after), key, unavailable, json_nulls)

    def _json_nulls(self, row: Row) -> tuple[str, ...]:
        return tuple(
            column.name
            for column, type_, value in zip(
                self._table.schema.columns, self._table.types, row, strict=True
            )
            if type_.kind is Kind.JSON and isinstance(value, str) and is_json_null(value)
        )

    def _key(self, row: Row) -> str:
        if any(row[index] is UNCHANGED for index in self._table.key):
            raise key_unavailable(self._table)
        return ascii_json(self._object(row, self._table.key))

    def _object(self, row: Row, indexes: Iterable[int]) -> str:
        fields = (f"{self._names[index]}:{self._json(row[index], index)}" for index in indexes)
        return "{" + ",".join(fields) + "}"

    def _json(self, value: Value, index: int) -> str:
        if value is None:
            return "null"
        if value is UNCHANGED:
            return UNAVAILABLE_JSON
        return render(value, self._table.types[index])


def fill(new: Sequence[Value], old: Sequence[Value]) -> Row:
    """Take values that the new row does not carry from the old one, as far as that has them."""
    return tuple(
        before if value is UNCHANGED and isinstance(before, str) else value
        for value, before in zip(new, old, strict=True)
    )


def missing(table: Table, row: Sequence[Value]) -> tuple[str, ...]:
    """The names of the columns whose value is not in the log."""
    return tuple(
        column.name
        for column, value in zip(table.schema.columns, row, strict=True)
        if value is UNCHANGED
    )


def key_unavailable(table: Table) -> FatalError:
    """The error for a change of which nobody can tell whose it is."""
    return FatalError(
        "postgres.key_unavailable",
        "the log does not carry the key of a changed row, which is too long to be stored inline",
        where=table.label,
        cure="update the server to its latest minor version, or set REPLICA IDENTITY FULL",
    )


def unreadable(table: Table, frame: bytes | memoryview) -> FatalError:
    """The error for a change that the fast way stumbled over, as the exact way tells it."""
    try:
        ExactReader(table).read(frame)
    except FatalError as error:
        return error
    return malformed(frame[XLOG_HEADER_SIZE:], f"a value of {table.label} cannot be read")
