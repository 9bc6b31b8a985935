"""Rows that come as JSON objects, from an API or in a request: their columns, and their envelopes.

JSON names no types, so a column's type is that of its values: `integer` (of 64 bits), `number`,
`boolean`, `string`, or `json` for objects, lists and whatever has come in several types. A field
that has only ever been null is no column yet. Once seen, a column stays, and a row that lacks it
has null there.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.changes import Column, TableSchema
from connectors.json_text import ascii_json, product_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    # An object as `decode` gives it.
    Row = Mapping[str, object]

DIALECT = "json"
# Of a table. Each row has all of them, so that a sender of ever new fields would make every row to
# come larger without end. A PostgreSQL table has 1,600 at most.
MOST_COLUMNS = 1000
# How values of a type appear in JSON, where that is no string.
_JSON = {
    "integer": "number", "number": "number", "double": "number",
    "boolean": "boolean", "json": "json",
}  # fmt: skip
_INT64 = range(-(2**63), 2**63)

_encode = msgspec.json.Encoder(decimal_format="number").encode


def _number(text: str) -> float | Decimal:
    """A number with a fraction or an exponent: a float where that holds all of its digits."""
    short = float(text)
    if repr(short) == text:
        return short
    try:
        exact = Decimal(text)
    except ArithmeticError:
        raise msgspec.DecodeError("a number's exponent is too large") from None
    return short if isfinite(short) and Decimal(repr(short)) == exact else exact


_decode = msgspec.json.Decoder(float_hook=_number).decode


def decode(data: bytes) -> object:
    """Read JSON without losing a digit: numbers are int, float, or Decimal where need be.

    Raises:
        msgspec.DecodeError: It is no JSON.
        RecursionError: It is too deep.
        UnicodeDecodeError: It is not UTF-8.
    """
    return _decode(data)


def encode(value: object) -> bytes:
    """Write what `decode` has read."""
    return _encode(value)


def type_of(value: object) -> str | None:
    """The type of a value; None for null, which has none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _INT64 else "number"
    if isinstance(value, float | Decimal):
        return "number"
    return "string" if isinstance(value, str) else "json"


def column(name: str, type_: str) -> Column:
    """A column of a type that `type_of` gives, or of one that its owner has declared."""
    return Column(name, type_, _JSON.get(type_, "string"))


def wider(known: str, seen: str) -> str:
    """The type of a column that has values of both."""
    return "number" if {known, seen} == {"integer", "number"} else "json"


class TooManyColumnsError(ValueError):
    """A row would bring a table's columns to more than `MOST_COLUMNS`."""


class JsonTable:
    """A table of JSON objects, and the columns that it is known to have.

    Args:
        source: The source's name.
        schema: The table's namespace.
        name: The table's name.
        key: Names of the fields that identify a row.
        columns: Those that are known already, or declared.
        fixed: Whether these are all: other fields are left out then, and types do not change.

    Attributes:
        schema: The present version of the table's shape.
    """

    def __init__(
        self,
        source: str,
        schema: str,
        name: str,
        key: Sequence[str],
        columns: Sequence[Column] = (),
        *,
        fixed: bool = False,
    ) -> None:
        self._source, self._namespace, self._name = source, schema, name
        self._key, self._fixed = tuple(key), fixed
        self._types = {column.name: column.type for column in columns}
        self.schema = self._shape()

    def learn(self, row: Row) -> bool:
        """Take a row's columns in; returns whether that has made another version of the shape.

        Raises:
            TooManyColumnsError: There would be too many; none of the row's was taken in.
        """
        if self._fixed:
            return False
        types, changed = self._types, False
        if len(types) + len(row) > MOST_COLUMNS:
            more = sum(value is not None and name not in types for name, value in row.items())
            if more and len(types) + more > MOST_COLUMNS:
                raise TooManyColumnsError
        for name, value in row.items():
            known, seen = types.get(name), type_of(value)
            if seen is None or known in (seen, "json"):
                continue
            type_ = seen if known is None else wider(known, seen)
            if type_ != known:
                types[name], changed = type_, True
        if changed:
            self.schema = self._shape()
        return changed

    def render(self, row: Row) -> bytes:
        """A row as JSON: every column in its order. The row's columns must have been learned."""
        get = row.get
        return _encode({name: get(name) for name in self._types})

    def key_of(self, row: Row) -> str | None:
        """The key as `Change.key` wants it; None where a part is missing, null or no scalar."""
        parts = {}
        for name in self.schema.key:
            value = row.get(name)
            if type_of(value) in (None, "json"):
                return None
            parts[name] = value
        return key_text(parts) if parts else None

    def _shape(self) -> TableSchema:
        columns = tuple(column(name, type_) for name, type_ in self._types.items())
        known = set(self._key)
        key = tuple(each.name for each in columns if each.name in known)
        return TableSchema(self._source, self._namespace, self._name, columns, key, DIALECT)


def key_text(parts: Row) -> str:
    """A key as JSON in ASCII, without blanks."""
    return ascii_json(_encode(parts).decode())


class Envelopes:
    """Makes Debezium's envelopes of one table's rows.

    Args:
        connector: The source's type.
        source: The source's name.
        schema: The table's namespace.
        table: The table's name.
    """

    def __init__(self, connector: str, source: str, schema: str, table: str) -> None:
        head = {"version": product_version(), "connector": connector, "name": source}
        self._head = _encode(head)[:-1] + b',"ts_ms":'
        place = _encode({"snapshot": "false", "schema": schema, "table": table})
        self._place = b"," + place[1:-1]

    def envelope(
        self,
        op: str,
        before: bytes | None,
        after: bytes | None,
        *,
        happened_ms: int,
        now_ms: int,
        transaction: str,
        order: int,
        more: bytes = b"",
    ) -> bytes:
        """One envelope, as UTF-8.

        Args:
            op: As in `Change.op`.
            before: The old row as JSON; None: null.
            after: The new row as JSON; None: null.
            happened_ms: When it happened at the source, Unix time in milliseconds.
            now_ms: When it was read.
            transaction: Its id, ASCII without quotes.
            order: 1, 2, 3 … in the transaction.
            more: Further members of `source`, each with a comma before it.
        """
        return (
            b'{"before":%b,"after":%b,"source":%b%d%b%b},"op":"%b","ts_ms":%d,'
            b'"transaction":{"id":"%b","total_order":%d}}'
        ) % (
            before or b"null",
            after or b"null",
            self._head,
            happened_ms,
            self._place,
            more,
            op.encode("ascii"),
            now_ms,
            transaction.encode("ascii"),
            order,
        )
