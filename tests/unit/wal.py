"""Builds pgoutput messages and frames by the letter of PostgreSQL's documentation."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from connectors.postgres.pgoutput.messages import UNCHANGED, Absent

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from connectors.postgres.pgoutput.types import TypeInfo

Cell: TypeAlias = str | bytes | Absent | None


def xlog(lsn: int, message: bytes) -> bytes:
    return b"w" + struct.pack("!QQq", lsn, lsn, 0) + message


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def cells(values: Sequence[Cell]) -> bytes:
    return struct.pack("!H", len(values)) + b"".join(cell(value) for value in values)


def cell(value: Cell) -> bytes:
    if value is None:
        return b"n"
    if value is UNCHANGED:
        return b"u"
    data = value.encode() if isinstance(value, str) else bytes(value)
    return b"t" + struct.pack("!I", len(data)) + data


def begin(commit_lsn: int, xid: int, at_us: int = 0) -> bytes:
    return b"B" + struct.pack("!QqI", commit_lsn, at_us, xid)


def commit(commit_lsn: int, end_lsn: int, at_us: int = 0) -> bytes:
    return b"C\0" + struct.pack("!QQq", commit_lsn, end_lsn, at_us)


def relation(
    oid: int,
    name: str,
    columns: Sequence[tuple[str, int, bool] | tuple[str, int, bool, int]],
    *,
    identity: str = "d",
    schema: str = "public",
) -> bytes:
    described = b"".join(
        bytes([key]) + text(column) + struct.pack("!Ii", type_oid, *(modifier or (-1,)))
        for column, type_oid, key, *modifier in columns
    )
    head = b"R" + struct.pack("!I", oid) + text(schema) + text(name) + identity.encode()
    return head + struct.pack("!H", len(columns)) + described


def insert(oid: int, new: Sequence[Cell]) -> bytes:
    return b"I" + struct.pack("!I", oid) + b"N" + cells(new)


def update(
    oid: int, new: Sequence[Cell], old: Sequence[Cell] | None = None, kind: str = "O"
) -> bytes:
    before = b"" if old is None else kind.encode() + cells(old)
    return b"U" + struct.pack("!I", oid) + before + b"N" + cells(new)


def delete(oid: int, old: Sequence[Cell], kind: str = "K") -> bytes:
    return b"D" + struct.pack("!I", oid) + kind.encode() + cells(old)


def truncate(*oids: int, options: int = 0) -> bytes:
    return b"T" + struct.pack(f"!IB{len(oids)}I", len(oids), options, *oids)


def message(lsn: int, prefix: str, content: bytes, *, transactional: bool) -> bytes:
    head = b"M" + struct.pack("!BQ", transactional, lsn) + text(prefix)
    return head + struct.pack("!I", len(content)) + content


@dataclass
class FakeCatalog:
    """A catalog of what it is given; remembers what it was asked."""

    known: dict[int, TypeInfo] = field(default_factory=dict)
    keys: dict[int, tuple[str, ...]] = field(default_factory=dict)
    asked: list[object] = field(default_factory=list)

    def types(self, oids: Collection[int]) -> dict[int, TypeInfo]:
        self.asked.append(tuple(oids))
        return {oid: self.known[oid] for oid in oids if oid in self.known}

    def primary_key(self, relation_oid: int) -> tuple[str, ...]:
        self.asked.append(relation_oid)
        return self.keys.get(relation_oid, ())
