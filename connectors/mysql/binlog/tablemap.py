"""A table as a TABLE_MAP event describes it, free of I/O.

Format: MySQL source, libs/mysql/binlog/event/rows_event.h (`Table_map_event`); MariaDB's is the
same. The optional metadata that `binlog_row_metadata = FULL` adds carry names, keys, character
sets, signedness and the values of ENUM and SET.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connectors.mysql.binlog.cursor import Cursor
from connectors.mysql.binlog.events import HEADER_SIZE, malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

# The header, the table's id (6 bytes) and flags (2); what follows tells the shape.
BODY = HEADER_SIZE + 8

TINY, SHORT, LONG, FLOAT, DOUBLE = 1, 2, 3, 4, 5
TIMESTAMP, LONGLONG, INT24, DATE, TIME, DATETIME, YEAR, NEWDATE = 7, 8, 9, 10, 11, 12, 13, 14
VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2 = 15, 16, 17, 18, 19
BLOB_COMPRESSED, VARCHAR_COMPRESSED = 140, 141
VECTOR, JSON, NEWDECIMAL, ENUM, SET = 242, 245, 246, 247, 248
TINY_BLOB, MEDIUM_BLOB, LONG_BLOB, BLOB, VAR_STRING, STRING, GEOMETRY = range(249, 256)

_ONE_BYTE = {
    FLOAT, DOUBLE, TIMESTAMP2, DATETIME2, TIME2, BLOB, GEOMETRY, JSON, VECTOR, BLOB_COMPRESSED,
    TINY_BLOB, MEDIUM_BLOB, LONG_BLOB,
}  # fmt: skip
_TWO_BYTES = {VARCHAR, BIT, NEWDECIMAL, VAR_STRING, STRING, ENUM, SET, VARCHAR_COMPRESSED}
# Those that have a bit of signedness; a YEAR has one too, on both servers.
_NUMERIC = {TINY, SHORT, INT24, LONG, LONGLONG, NEWDECIMAL, FLOAT, DOUBLE, YEAR}
_CHARACTER = {
    STRING, VAR_STRING, VARCHAR, BLOB, TINY_BLOB, MEDIUM_BLOB, LONG_BLOB, BLOB_COMPRESSED,
    VARCHAR_COMPRESSED,
}  # fmt: skip

_SIGNEDNESS, _DEFAULT_CHARSET, _COLUMN_CHARSET, _NAMES = 1, 2, 3, 4
_SET_VALUES, _ENUM_VALUES, _GEOMETRY_TYPE = 5, 6, 7
_PRIMARY_KEY, _PRIMARY_KEY_WITH_PREFIX = 8, 9
_ENUM_DEFAULT_CHARSET, _ENUM_COLUMN_CHARSET, _DIMENSIONS = 10, 11, 13


@dataclass(slots=True)
class MappedColumn:
    """A column as the log tells it.

    Attributes:
        type: MySQL's number of its type; ENUM and SET are resolved.
        metadata: Of the type; its meaning depends on the type.
        name: Its name; empty: the log does not tell.
        unsigned: Of numbers.
        collation: The number of its collation; 0: the log does not tell, or it has none.
        values: Of ENUM and SET, in the collation's character set.
        geometry: Which type of geometry.
        dimensions: Of a vector.
    """

    type: int
    metadata: int
    name: str = ""
    unsigned: bool = False
    collation: int = 0
    values: tuple[bytes, ...] = ()
    geometry: int = 0
    dimensions: int = 0


@dataclass(slots=True)
class TableMap:
    """A table's shape.

    Attributes:
        schema: Its database.
        name: Its name.
        columns: All of them, in order.
        key: The indexes of the primary key's columns, in the key's order.
        named: Whether the log tells the columns' names.
    """

    schema: str
    name: str
    columns: list[MappedColumn]
    key: tuple[int, ...] = ()
    named: bool = field(default=False)


def table_name(event: bytes) -> tuple[str, str]:
    """The database and the name of the table, without the rest."""
    size = event[BODY]
    schema = event[BODY + 1 : BODY + 1 + size].decode()
    start = BODY + 2 + size
    return schema, event[start + 1 : start + 1 + event[start]].decode()


def parse_table_map(event: bytes, end: int, *, mariadb: bool) -> TableMap:
    """Read the event.

    Args:
        event: The event.
        end: Where it ends, without its checksum.
        mariadb: Which kind of server wrote it; MariaDB counts geometries
            among texts, MySQL vectors.

    Raises:
        FatalError: `mysql.malformed_event`.
    """
    try:
        cursor = Cursor(event, BODY, end)
        schema = cursor.take(cursor.number(1)).decode()
        cursor.take(1)
        name = cursor.take(cursor.number(1)).decode()
        cursor.take(1)
        types = cursor.take(cursor.length())
        metadata = Cursor(cursor.text(), 0, len(event))
        columns = [_column(type_, metadata) for type_ in types]
        cursor.take((len(types) + 7) // 8)
        table = TableMap(schema, name, columns)
        while cursor.more:
            kind = cursor.number(1)
            value = cursor.text()
            _option(table, kind, Cursor(value, 0, len(value)), mariadb=mariadb)
    except (ValueError, IndexError, StopIteration) as error:
        raise malformed(event, f"a table map: {error}") from None
    return table


def _column(type_: int, metadata: Cursor) -> MappedColumn:
    if type_ in _ONE_BYTE:
        return MappedColumn(type_, metadata.number(1))
    if type_ not in _TWO_BYTES:
        return MappedColumn(type_, 0)
    first, second = metadata.number(1), metadata.number(1)
    if type_ == NEWDECIMAL:
        return MappedColumn(type_, first << 8 | second)
    if type_ == BIT:
        return MappedColumn(type_, second * 8 + first)
    if type_ != STRING:
        return MappedColumn(type_, second << 8 | first)
    if first & 0x30 != 0x30:
        # a CHAR of more than 255 bytes: two bits of its length are in the type, inverted
        return MappedColumn(first | 0x30, (first & 0x30 ^ 0x30) << 4 | second)
    return MappedColumn(first, second)


def _option(table: TableMap, kind: int, value: Cursor, *, mariadb: bool) -> None:
    columns = table.columns
    texts = _CHARACTER | {GEOMETRY if mariadb else VECTOR}
    if kind == _SIGNEDNESS:
        _signedness(_of(columns, _NUMERIC), value)
    elif kind == _NAMES:
        for column in columns:
            column.name = value.text().decode()
        table.named = True
    elif kind in (_DEFAULT_CHARSET, _ENUM_DEFAULT_CHARSET):
        default = value.length()
        others = {}
        while value.more:
            place = value.length()
            others[place] = value.length()
        chosen = texts if kind == _DEFAULT_CHARSET else {ENUM, SET}
        for index, column in enumerate(_of(columns, chosen)):
            column.collation = others.get(index, default)
    elif kind in (_COLUMN_CHARSET, _ENUM_COLUMN_CHARSET):
        for column in _of(columns, texts if kind == _COLUMN_CHARSET else {ENUM, SET}):
            column.collation = value.length()
    elif kind in (_SET_VALUES, _ENUM_VALUES):
        for column in _of(columns, {SET if kind == _SET_VALUES else ENUM}):
            column.values = tuple(value.text() for _ in range(value.length()))
    elif kind == _GEOMETRY_TYPE:
        for column in _of(columns, {GEOMETRY}):
            column.geometry = value.length()
    elif kind == _DIMENSIONS:
        for column in _of(columns, {VECTOR}):
            column.dimensions = value.length()
    elif kind in (_PRIMARY_KEY, _PRIMARY_KEY_WITH_PREFIX):
        key = []
        while value.more:
            key.append(value.length())
            if kind == _PRIMARY_KEY_WITH_PREFIX:
                value.length()
        table.key = tuple(key)


def _signedness(columns: list[MappedColumn], bits: Cursor) -> None:
    data = bits.take(bits.end)
    for index, column in enumerate(columns):
        column.unsigned = bool(data[index // 8] & 0x80 >> index % 8)


def _of(columns: Iterable[MappedColumn], types: Iterable[int]) -> list[MappedColumn]:
    return [column for column in columns if column.type in types]
