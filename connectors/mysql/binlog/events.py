"""The events of a binary log that are not about rows, free of I/O.

Format: MySQL source, libs/mysql/binlog/event/; MariaDB documentation, "Binlog Event Header" and the
pages of each event. All integers are little-endian. An event is its 19-byte header, a part of fixed
size, a part of variable size and, where the log has them, 4 bytes of CRC-32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from connectors.errors import FatalError
from connectors.mysql.binlog.cursor import Cursor

HEADER_SIZE = 19
CHECKSUM_SIZE = 4
# timestamp, type, server id, size, end position, flags
HEADER = struct.Struct("<IBIIIH").unpack_from

IGNORABLE = 0x80

QUERY = 2
STOP = 3
ROTATE = 4
INTVAR = 5
RAND = 13
USER_VAR = 14
FORMAT_DESCRIPTION = 15
XID = 16
BEGIN_LOAD_QUERY = 17
EXECUTE_LOAD_QUERY = 18
TABLE_MAP = 19
WRITE_ROWS, UPDATE_ROWS, DELETE_ROWS = 30, 31, 32
WRITE_ROWS_V1, UPDATE_ROWS_V1, DELETE_ROWS_V1 = 23, 24, 25
INCIDENT = 26
HEARTBEAT = 27
IGNORABLE_EVENT = 28
ROWS_QUERY = 29
GTID = 33
ANONYMOUS_GTID = 34
PREVIOUS_GTIDS = 35
TRANSACTION_CONTEXT = 36
VIEW_CHANGE = 37
XA_PREPARE = 38
PARTIAL_UPDATE_ROWS = 39
TRANSACTION_PAYLOAD = 40
HEARTBEAT_V2 = 41
GTID_TAGGED = 42
MARIADB_ANNOTATE_ROWS = 160
MARIADB_BINLOG_CHECKPOINT = 161
MARIADB_GTID = 162
MARIADB_GTID_LIST = 163
MARIADB_START_ENCRYPTION = 164
MARIADB_QUERY_COMPRESSED = 165
MARIADB_COMPRESSED_ROWS = range(166, 172)

# They tell nothing that a reader of changes needs.
PASSED_OVER = frozenset(
    {
        STOP,
        IGNORABLE_EVENT,
        ROWS_QUERY,
        PREVIOUS_GTIDS,
        TRANSACTION_CONTEXT,
        VIEW_CHANGE,
        MARIADB_ANNOTATE_ROWS,
        MARIADB_BINLOG_CHECKPOINT,
        MARIADB_GTID_LIST,
        MARIADB_START_ENCRYPTION,
    }
)
# They come before a statement that was logged as its text, which tells enough.
OF_STATEMENTS = frozenset({INTVAR, RAND, USER_VAR, BEGIN_LOAD_QUERY})
HEARTBEATS = frozenset({HEARTBEAT, HEARTBEAT_V2})

# Of a MariaDB GTID event: one statement outside a transaction; a group commit's id follows; the
# transaction is prepared; a prepared one ends.
_STANDALONE, _GROUP_COMMIT, _PREPARED, _COMPLETED = 1, 2, 64, 128
_ORIGINAL_FOLLOWS = 1 << 55
# The fixed parts of the events that are decoded here; 0 for those that a server never writes.
_FIXED_PARTS = {TABLE_MAP: (8,), WRITE_ROWS_V1: (0, 8), WRITE_ROWS: (0, 10)}


class Gtid(NamedTuple):
    """A transaction's global id: `f"{source}{number}"`, as the server writes it.

    Attributes:
        source: Where it was committed. MySQL: `uuid:` or `uuid:tag:`; MariaDB: `domain-server-`.
        number: Its number there.
    """

    source: str
    number: int


class Begin(NamedTuple):
    """A transaction begins.

    Attributes:
        gtid: Its id.
        committed_ms: When it was committed, Unix time; MariaDB tells whole seconds.
        standalone: MariaDB: one statement is all there is. MySQL never tells.
        prepared: MariaDB: the XA transaction that is only prepared here.
        completed: MariaDB: the XA transaction that ends here.
    """

    gtid: Gtid
    committed_ms: int
    standalone: bool = False
    prepared: str = ""
    completed: str = ""


@dataclass(frozen=True, slots=True)
class FormatDescription:
    """The first event of a file.

    Attributes:
        version: The server's version.
        checksums: Whether the file's events end with a CRC-32.
    """

    version: str
    checksums: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A statement.

    Attributes:
        database: The session's database.
        text: The statement.
    """

    database: str
    text: str


def malformed(event: bytes, problem: str) -> FatalError:
    """The error for an event that is not as it should be."""
    kind = event[4] if len(event) > 4 else -1
    return FatalError(
        "mysql.malformed_event",
        f"an event of type {kind} and {len(event)} bytes: {problem}",
        cure="check the server's binary log with mysqlbinlog --verify-binlog-checksum",
    )


def parse_rotate(event: bytes, end: int) -> tuple[str, int]:
    """The file that follows, and the position in it."""
    position = int.from_bytes(event[HEADER_SIZE : HEADER_SIZE + 8], "little")
    return event[HEADER_SIZE + 8 : end].decode(), position


def parse_format_description(event: bytes) -> FormatDescription:
    """Read the first event of a file, which always carries room for a checksum.

    Raises:
        FatalError: `mysql.binlog_version`: another layout than the one that is decoded here.
    """
    version = event[HEADER_SIZE + 2 : HEADER_SIZE + 52].rstrip(b"\0").decode(errors="replace")
    lengths = event[HEADER_SIZE + 57 :]
    layout = int.from_bytes(event[HEADER_SIZE : HEADER_SIZE + 2], "little")
    fits = all(
        len(lengths) > kind and lengths[kind - 1] in sizes for kind, sizes in _FIXED_PARTS.items()
    )
    if layout != 4 or event[HEADER_SIZE + 56] != HEADER_SIZE or not fits:
        raise FatalError(
            "mysql.binlog_version",
            f"a binary log of format {layout}, written by {version}",
            cure="use a server of a supported version",
        )
    return FormatDescription(version, event[-CHECKSUM_SIZE - 1] == 1)


def parse_gtid(event: bytes) -> Begin:
    """MySQL's GTID event."""
    number = int.from_bytes(event[HEADER_SIZE + 17 : HEADER_SIZE + 25], "little")
    committed = int.from_bytes(event[HEADER_SIZE + 42 : HEADER_SIZE + 49], "little")
    source = _source(event[HEADER_SIZE + 1 : HEADER_SIZE + 17])
    return Begin(Gtid(source, number), _milliseconds(event, committed & ~_ORIGINAL_FOLLOWS))


def parse_tagged_gtid(event: bytes, end: int) -> Begin:
    """MySQL's GTID event with a tag: a message of its serialization library.

    Fields that have their default are left out; each begins with its number.

    Raises:
        FatalError: `mysql.malformed_event`.
    """
    cursor = Cursor(event, HEADER_SIZE, end)
    try:
        version, size, _ = cursor.varint(), cursor.varint(), cursor.varint()
        cursor.end = min(end, HEADER_SIZE + size)
        uuid = tag = ""
        number = committed = 0
        while cursor.more and (field := cursor.varint()) <= 6:
            if field == 1:
                uuid = bytes(cursor.varint() for _ in range(16)).hex()
            elif field == 2:
                number = cursor.signed_varint()
            elif field == 3:
                tag = cursor.take(cursor.varint()).decode()
            elif field == 6:
                committed = cursor.varint()
            else:
                cursor.varint()
    except ValueError as error:
        raise malformed(event, str(error)) from None
    if version != 1 or not uuid or number < 1:
        raise malformed(event, f"a GTID in version {version} of its format")
    source = f"{_dashed(uuid)}:{tag}:" if tag else f"{_dashed(uuid)}:"
    return Begin(Gtid(source, number), _milliseconds(event, committed))


def parse_mariadb_gtid(event: bytes) -> Begin:
    """MariaDB's GTID event."""
    seconds, _, server, _, _, _ = HEADER(event)
    number, domain, flags = struct.unpack_from("<QIB", event, HEADER_SIZE)
    xid = ""
    if flags & (_PREPARED | _COMPLETED):
        start = HEADER_SIZE + 13 + (8 if flags & _GROUP_COMMIT else 0)
        size = event[start + 4] + event[start + 5]
        xid = event[start : start + 6 + size].hex()
    return Begin(
        Gtid(f"{domain}-{server}-", number),
        seconds * 1000,
        standalone=bool(flags & _STANDALONE),
        prepared=xid if flags & _PREPARED else "",
        completed=xid if flags & _COMPLETED else "",
    )


def parse_query(event: bytes, end: int) -> Query:
    """A statement with its database."""
    database, start = query_body(event)
    return Query(database, event[start:end].decode(errors="replace"))


def query_body(event: bytes) -> tuple[str, int]:
    """The database of a statement, and where its text begins."""
    size = event[HEADER_SIZE + 8]
    variables = int.from_bytes(event[HEADER_SIZE + 11 : HEADER_SIZE + 13], "little")
    start = HEADER_SIZE + 13 + variables
    return event[start : start + size].decode(errors="replace"), start + size + 1


@lru_cache(maxsize=256)
def _source(uuid: bytes) -> str:
    return f"{_dashed(uuid.hex())}:"


def _dashed(uuid: str) -> str:
    return f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}"


def _milliseconds(event: bytes, committed_us: int) -> int:
    """The commit's time; servers before 8.0.1 tell only the seconds of the header."""
    return committed_us // 1000 or int.from_bytes(event[:4], "little") * 1000
