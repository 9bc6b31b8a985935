"""A change that is being worked on: its rows opened, their values still the bytes they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from connectors.contracts.changes import Change, UnwrappedChange
from connectors.json_text import ascii_json
from connectors.wrapping import wrapped
from dataflows.failing import UNREADABLE, unreadable

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered, TableSchema

# A row by its columns, in their order; each value as JSON bytes.
Row: TypeAlias = "dict[str, msgspec.Raw]"

_new = tuple.__new__

NULL = msgspec.Raw(b"null")

encode = msgspec.json.Encoder().encode
decode_value = msgspec.json.Decoder().decode
decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_row_or_null = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
_decode_op = msgspec.json.Decoder(str).decode


class Record:
    """One change on its way through the transforms.

    Transforms never alter a row in place: they put a new one in its place, and only when nothing
    can go wrong any more, so that one that fails leaves the record as it was.

    Args:
        change: What it begins as.

    Attributes:
        table: As in `contracts.Change`.
        key: As in `contracts.Change`.
        unavailable: As in `contracts.Change`.
        json_nulls: As in `contracts.Change`.
        op: As in `contracts.Change`; of a delivered change known only once it is open.
        before: The old row, None without one; known once it is open.
        after: The new row, None without one; known once it is open.
        fields: The envelope's other fields, its own; empty until it is open.
        route: What an outbox's event says about its topic; empty otherwise.
        unwrapped: Whether the message is to be the row alone.
    """

    __slots__ = (
        "_change",
        "after",
        "before",
        "fields",
        "json_nulls",
        "key",
        "op",
        "route",
        "table",
        "unavailable",
        "unwrapped",
    )

    def __init__(self, change: Change | Delivered) -> None:
        self._change = change
        self.table: TableSchema | None = change.table
        self.key = change.key
        self.unavailable = change.unavailable
        self.json_nulls = change.json_nulls
        self.op = change.op if isinstance(change, Change) else ""
        self.before: Row | None = None
        self.after: Row | None = None
        self.fields: Row = {}
        self.route = ""
        self.unwrapped = False

    def open(self) -> None:
        """Read the rows, unless that was done before. Raises StepError if they cannot be read."""
        if self.fields:
            return
        try:
            fields = decode_row(self._change.envelope)
            if not self.op:
                self.op = _decode_op(fields["op"])
            self.before = _decode_row_or_null(fields.get("before", NULL))
            self.after = _decode_row_or_null(fields.get("after", NULL))
        except UNREADABLE:
            raise unreadable() from None
        self.fields = fields

    def copy(self) -> Record:
        """Another one of the same change, as it is now."""
        twin = Record(self._change)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.fields = self.fields.copy()
        return twin

    @property
    def change(self) -> Change | Delivered:
        """The change that it has become."""
        was = self._change
        if not isinstance(was, Change):
            envelope = wrapped(self.op, self.key, self._row) if self.unwrapped else self.envelope
            return was._replace(
                key=self.key,
                table=self.table,
                envelope=envelope,
                unavailable=self.unavailable,
                json_nulls=self.json_nulls,
            )
        told = (
            self.op,
            self.table,
            was.position,
            self.key,
            was.transaction,
            was.last,
            self._row if self.unwrapped else self.envelope,
            self.unavailable,
            self.json_nulls,
            was.failed,
        )
        # Not `Change(...)`, whose own `__new__` is a Python function.
        return _new(UnwrappedChange if self.unwrapped else Change, told)

    @property
    def _row(self) -> bytes:
        return encode(NULL if self.after is None else self.after)

    @property
    def envelope(self) -> bytes:
        """The envelope as it is now; what was not touched is the same bytes as before."""
        if not self.fields:
            return self._change.envelope
        fields = cast("dict[str, object]", self.fields)
        fields["before"], fields["after"] = self.before, self.after
        return encode(fields)

    def value(self, name: str) -> msgspec.Raw | None:
        """A column's value in the new row, or in the old one where that lacks it.

        None where neither holds it. The record is open.
        """
        if self.after is not None and name not in self.unavailable and name in self.after:
            return self.after[name]
        return self.before.get(name) if self.before is not None else None


def row_of_key(key: str) -> Row:
    """A key's columns and values."""
    return decode_row(key)


def key_of_row(row: Row) -> str:
    """A key as it is stored: a JSON object in ASCII without blanks."""
    return ascii_json(encode(row).decode())


def is_null(value: msgspec.Raw) -> bool:
    """Whether a value is null."""
    return value == NULL
