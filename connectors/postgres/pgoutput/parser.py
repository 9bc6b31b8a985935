"""The obviously right parser of pgoutput, free of I/O: bytes to frozen dataclasses.

Format: PostgreSQL documentation, "Logical Replication Message Formats", protocol version 1 (no
streaming of transactions in progress, no two-phase commit), values as text. All integers are
big-endian; strings end with a NUL.

Every parser here raises `FatalError`: `postgres.unknown_message` for a message type it does not
know, `postgres.malformed_message` for one that is too short, too long or makes no sense.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from connectors.errors import FatalError
from connectors.postgres.pgoutput.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    Type,
    Update,
)
from connectors.postgres.pgoutput.streaming import EPOCH_US

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.postgres.pgoutput.messages import LogicalMessage, Row, Value


def parse(data: bytes) -> LogicalMessage:
    """Read one logical replication message."""
    cursor = _Cursor(data)
    kind = data[:1]
    parser = _PARSERS.get(kind)
    if parser is None:
        raise FatalError(
            "postgres.unknown_message",
            f"a logical replication message of unknown type {kind!r}",
            cure="use a server of a supported version, and protocol version 1",
        )
    cursor.take(1)
    message = parser(cursor)
    if cursor.position != len(data):
        raise malformed(data, "it has more bytes than it should")
    return message


def malformed(data: bytes | memoryview, why: str) -> FatalError:
    """The error for a message that cannot be understood; never shows the values in it."""
    return FatalError(
        "postgres.malformed_message",
        f"a logical replication message {bytes(data[:1])!r} of {len(data)} bytes: {why}",
        cure="nothing was lost; report it together with the server's version",
    )


class _Cursor:
    """Reads the fields of a message one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise malformed(self.data, "it is too short")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def time(self) -> int:
        (microseconds,) = struct.unpack("!q", self.take(8))
        return int(microseconds) + EPOCH_US

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise malformed(self.data, "it is not UTF-8") from None

    def string(self) -> str:
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise malformed(self.data, "a string has no end")
        value = self.text(end - self.position)
        self.position = end + 1
        return value

    def namespace(self) -> str:
        return self.string() or "pg_catalog"

    def mark(self, allowed: str) -> str:
        mark = self.take(1).decode("latin-1")
        if mark not in allowed:
            raise malformed(self.data, f"{mark!r} where one of {allowed!r} was expected")
        return mark

    def row(self) -> Row:
        return tuple(self.value() for _ in range(self.integer(2)))

    def value(self) -> Value:
        mark = self.mark("tnu")
        if mark == "n":
            return None
        if mark == "u":
            return UNCHANGED
        value = self.text(self.integer(4))
        if "\0" in value:
            raise malformed(self.data, "a value holds a NUL")
        return value


def _begin(cursor: _Cursor) -> Begin:
    return Begin(cursor.integer(8), cursor.time(), cursor.integer(4))


def _commit(cursor: _Cursor) -> Commit:
    cursor.take(1)  # flags, unused
    return Commit(cursor.integer(8), cursor.integer(8), cursor.time())


def _origin(cursor: _Cursor) -> Origin:
    return Origin(cursor.integer(8), cursor.string())


def _relation(cursor: _Cursor) -> Relation:
    return Relation(
        oid=cursor.integer(4),
        schema=cursor.namespace(),
        name=cursor.string(),
        identity=cursor.mark("dnfi"),
        columns=tuple(_column(cursor) for _ in range(cursor.integer(2))),
    )


def _column(cursor: _Cursor) -> RelationColumn:
    flags = cursor.integer(1)
    name = cursor.string()
    oid = cursor.integer(4)
    (modifier,) = struct.unpack("!i", cursor.take(4))
    return RelationColumn(name, oid, int(modifier), bool(flags & 1))


def _type(cursor: _Cursor) -> Type:
    return Type(cursor.integer(4), cursor.namespace(), cursor.string())


def _insert(cursor: _Cursor) -> Insert:
    relation = cursor.integer(4)
    cursor.mark("N")
    return Insert(relation, cursor.row())


def _update(cursor: _Cursor) -> Update:
    relation = cursor.integer(4)
    kind = cursor.mark("KON")
    if kind == "N":
        return Update(relation, "", None, cursor.row())
    old = cursor.row()
    cursor.mark("N")
    return Update(relation, kind, old, cursor.row())


def _delete(cursor: _Cursor) -> Delete:
    return Delete(cursor.integer(4), cursor.mark("KO"), cursor.row())


def _truncate(cursor: _Cursor) -> Truncate:
    count, options = cursor.integer(4), cursor.integer(1)
    if count * 4 != len(cursor.data) - cursor.position:
        raise malformed(cursor.data, f"it should name {count} tables")
    relations = tuple(cursor.integer(4) for _ in range(count))
    return Truncate(relations, bool(options & 1), bool(options & 2))


def _message(cursor: _Cursor) -> Message:
    transactional = bool(cursor.integer(1) & 1)
    lsn, prefix = cursor.integer(8), cursor.string()
    return Message(transactional, lsn, prefix, cursor.take(cursor.integer(4)))


_PARSERS: dict[bytes, Callable[[_Cursor], LogicalMessage]] = {
    b"B": _begin,
    b"C": _commit,
    b"O": _origin,
    b"R": _relation,
    b"Y": _type,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
    b"M": _message,
}
