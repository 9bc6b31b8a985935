"""Builds binary log events by the letter of MySQL's and MariaDB's documentation."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Sequence

UUID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


class LogFile:
    """Events of one file, each with its place in it and its checksum.

    Args:
        number: Of the file.
        start: Where its first event begins.
    """

    def __init__(self, number: int = 1, start: int = 4, *, checksums: bool = True) -> None:
        self.name = f"binlog.{number:06d}"
        self.end = start
        self._checksums = checksums
        self.events: list[bytes] = [self._rotate(), self._format()]

    def add(self, kind: int, body: bytes, *, flags: int = 0) -> bytes:
        """Append an event; returns it."""
        size = 19 + len(body) + (4 if self._checksums else 0)
        self.end += size
        event = self._event(kind, body, self.end, flags)
        self.events.append(event)
        return event

    def gtid(self, number: int, *, source: str = UUID) -> None:
        """MySQL's GTID event."""
        self.add(
            33,
            b"\0"
            + bytes.fromhex(source.replace("-", ""))
            + struct.pack("<qBqq", number, 2, 0, 1)
            + (1_700_000_000_000_000 + number).to_bytes(7, "little"),
        )

    def query(self, text: str, database: str = "shop") -> None:
        name = database.encode()
        body = struct.pack("<IIBHH", 1, 0, len(name), 0, 0) + name + b"\0" + text.encode()
        self.add(2, body)

    def table_map(self, id_: int, body: bytes) -> None:
        """A TABLE_MAP event; `table_body` makes its body."""
        self.add(19, id_.to_bytes(6, "little") + b"\1\0" + body)

    def rows(
        self, id_: int, columns: int, rows: Sequence[bytes], *, kind: int = 30, present: int = -1
    ) -> None:
        """A rows event of the newer form."""
        bitmap = (present & (1 << columns) - 1).to_bytes((columns + 7) // 8, "little")
        body = id_.to_bytes(6, "little") + b"\1\0\2\0" + bytes([columns]) + bitmap
        self.add(kind, body + (bitmap if kind == 31 else b"") + b"".join(rows))

    def xid(self) -> None:
        self.add(16, struct.pack("<Q", 1))

    def transaction(self, number: int, table: int, body: bytes, rows: Sequence[bytes]) -> None:
        """A committed transaction that inserts rows into a table of two columns."""
        self.gtid(number)
        self.query("BEGIN")
        self.table_map(table, body)
        self.rows(table, 2, rows)
        self.xid()

    def _event(self, kind: int, body: bytes, end: int, flags: int = 0) -> bytes:
        size = 19 + len(body) + (4 if self._checksums else 0)
        head = struct.pack("<IBIIIH", 1_700_000_000, kind, 7, size, end & 0xFFFFFFFF, flags)
        data = head + body
        return data + struct.pack("<I", crc32(data)) if self._checksums else data

    def _rotate(self) -> bytes:
        """The artificial one that a server begins a file with."""
        return self._event(4, struct.pack("<Q", 4) + self.name.encode(), 0, 0x20)

    def _format(self) -> bytes:
        lengths = bytearray(42)
        lengths[18], lengths[29] = 8, 10
        body = struct.pack("<H50sIB", 4, b"9.7.4", 0, 19) + bytes(lengths)
        body += b"\1" if self._checksums else b"\0"
        data = struct.pack("<IBIIIH", 0, 15, 7, 19 + len(body) + 4, 0, 0) + body
        return data + struct.pack("<I", crc32(data))


def text(value: bytes) -> bytes:
    """A short string behind its length."""
    return bytes([len(value)]) + value


def table_body(name: str = "items", *, schema: str = "shop", names: bool = True) -> bytes:
    """A table `(id int unsigned PRIMARY KEY, value varchar(20))`."""
    body = text(schema.encode()) + b"\0" + text(name.encode()) + b"\0"
    body += bytes([2, 3, 15]) + text(struct.pack("<H", 80)) + b"\2"
    options = b"\1" + text(b"\x80") + b"\2" + text(b"\x2d") + b"\x08" + text(b"\0")
    if names:
        options += b"\4" + text(text(b"id") + text(b"value"))
    return body + options


def row(id_: int, value: bytes | None) -> bytes:
    """A row of that table."""
    if value is None:
        return b"\2" + struct.pack("<I", id_)
    return b"\0" + struct.pack("<I", id_) + text(value)
