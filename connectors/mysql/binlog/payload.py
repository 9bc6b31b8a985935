"""Compressed transactions of both servers, taken apart into ordinary events.

MySQL: a TRANSACTION_PAYLOAD event holds the events of a whole transaction (MySQL source,
libs/mysql/binlog/event/codecs/binary.cc); those have no checksums. MariaDB: the rows of an event,
or the text of a statement, are compressed by themselves (MariaDB source, sql/log_event.cc,
`binlog_buf_uncompress`).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import zstandard

from connectors.mysql.binlog.cursor import Cursor
from connectors.mysql.binlog.events import (
    HEADER_SIZE,
    MARIADB_COMPRESSED_ROWS,
    QUERY,
    WRITE_ROWS,
    WRITE_ROWS_V1,
    malformed,
    query_body,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_END, _COMPRESSION = 0, 2
_ZSTD, _NONE = 0, 255
# The kinds of MariaDB's compressed rows: write, update and delete of the older form, then the
# newer.
_KINDS = len(MARIADB_COMPRESSED_ROWS) // 2


def unfold(event: bytes, end: int) -> Iterator[bytes]:
    """Yield the events of a TRANSACTION_PAYLOAD, decompressing as it goes.

    Raises:
        FatalError: `mysql.malformed_event`, also for a compression that is not known.
    """
    cursor = Cursor(event, HEADER_SIZE, end)
    compression = _NONE
    try:
        while (field := cursor.length()) != _END:
            value = cursor.text()
            if field == _COMPRESSION:
                compression = Cursor(value, 0, len(value)).length()
        body = cursor.take(end - cursor.position)
    except ValueError as error:
        raise malformed(event, str(error)) from None
    if compression == _NONE:
        yield from _split(event, body)
    elif compression == _ZSTD:
        yield from _decompressed(event, body)
    else:
        raise malformed(event, f"a transaction compressed by method {compression}")


def uncompressed_rows(event: bytes, end: int) -> tuple[bytes, int]:
    """A rows event of MariaDB with its rows decompressed, without checksum; and its kind.

    Raises:
        FatalError: `mysql.malformed_event`.
    """
    form, which = divmod(event[4] - MARIADB_COMPRESSED_ROWS.start, _KINDS)
    kind = (WRITE_ROWS if form else WRITE_ROWS_V1) + which
    cursor = Cursor(event, HEADER_SIZE + 8, end)
    try:
        if form:
            cursor.take(cursor.number(2) - 2)
        size = (cursor.length() + 7) // 8
        cursor.take(size * (2 if which == 1 else 1))
        rows = _inflate(event[cursor.position : end])
    except (ValueError, IndexError, zlib.error) as error:
        raise malformed(event, f"compressed rows: {error}") from None
    return event[: cursor.position] + rows, kind


def uncompressed_query(event: bytes, end: int) -> bytes:
    """A statement of MariaDB with its text decompressed, without checksum.

    Raises:
        FatalError: `mysql.malformed_event`.
    """
    _, start = query_body(event)
    try:
        text = _inflate(event[start:end])
    except (ValueError, IndexError, zlib.error) as error:
        raise malformed(event, f"a compressed statement: {error}") from None
    return event[:4] + bytes([QUERY]) + event[5:start] + text


def _inflate(data: bytes) -> bytes:
    """Behind a head byte, whose lowest bits tell its size, stands the length of the whole."""
    head = data[0]
    if head >> 4 & 7:
        raise ValueError(f"compression by method {head >> 4 & 7}")
    return zlib.decompress(data[1 + (head & 7) :])


def _split(event: bytes, body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at + 9 : at + 13], "little")
        if size < HEADER_SIZE or at + size > len(body):
            raise malformed(event, "an event inside it is too long")
        yield body[at : at + size]
        at += size


def _decompressed(event: bytes, body: bytes) -> Iterator[bytes]:
    try:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as stream:
            while head := stream.read(HEADER_SIZE):
                size = int.from_bytes(head[9:13], "little")
                rest = stream.read(size - HEADER_SIZE) if size > HEADER_SIZE else b""
                if len(head) + len(rest) != size:
                    raise malformed(event, "an event inside it is too long")
                yield head + rest
    except zstandard.ZstdError as error:
        raise malformed(event, f"a compressed transaction: {error}") from None
