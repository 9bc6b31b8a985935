"""What a column of a TABLE_MAP means: its DDL type, how values lie in rows and become JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from connectors.errors import FatalError
from connectors.mysql.binlog import tablemap as tm

if TYPE_CHECKING:
    from connectors.mysql.binlog.charsets import Charset
    from connectors.mysql.binlog.declared import DeclaredColumn
    from connectors.mysql.binlog.tablemap import MappedColumn, TableMap


class Kind(Enum):
    """How the bytes of a value become JSON."""

    INTEGER = "integer"
    FLOAT = "float"
    DOUBLE = "double"
    DECIMAL = "decimal"
    YEAR = "year"
    DATE = "date"
    DATETIME = "datetime"
    TIMESTAMP = "timestamp"
    TIME = "time"
    OLD_DATETIME = "old datetime"  # before MySQL 5.6.4
    OLD_TIMESTAMP = "old timestamp"
    OLD_TIME = "old time"
    BIT = "bit"
    ENUM = "enum"
    SET = "set"
    TEXT = "text"
    BINARY = "binary"
    JSON = "json"
    GEOMETRY = "geometry"
    VECTOR = "vector"
    UUID = "uuid"
    INET4 = "inet4"
    INET6 = "inet6"


_JSON = {
    Kind.INTEGER: "number",
    Kind.FLOAT: "number",
    Kind.DOUBLE: "number",
    Kind.YEAR: "number",
    Kind.BINARY: "base64",
    Kind.GEOMETRY: "base64",
    Kind.JSON: "json",
    Kind.VECTOR: "array",
}


@dataclass(frozen=True, slots=True)
class ValueType:
    """A column's type, as far as its values go.

    Attributes:
        kind: How a value is rendered.
        name: The type as in DDL, such as `decimal(10,2)` or `int unsigned`.
        size: Of the value in bytes; 0: its length stands before it.
        prefix: Of that length in bytes.
        signed: Of integers.
        digits: Of a decimal, all of them; of a bit field its bits.
        scale: Of a decimal the digits behind the point; of a time those of a second.
        pad: The length that trailing zeros were cut from (BINARY).
        charset: Of a text.
        values: Of ENUM and SET.
        compressed: A compressed column of MariaDB.
    """

    kind: Kind
    name: str
    size: int = 0
    prefix: int = 0
    signed: bool = True
    digits: int = 0
    scale: int = 0
    pad: int = 0
    charset: Charset | None = None
    values: tuple[str, ...] = ()
    compressed: bool = False

    @property
    def json(self) -> str:
        """What `contracts.Column.json` says about such values."""
        return _JSON.get(self.kind, "string")


class Catalog(Protocol):
    """What the log does not carry and a server knows."""

    def charset(self, collation: int) -> Charset:
        """The character set of a collation, by its number.

        Raises:
            FatalError: `mysql.unknown_collation`.
        """
        ...

    def declared(self, schema: str, table: str) -> list[DeclaredColumn]:
        """The present columns of a table; empty when there is none, or we may not see it."""
        ...

    def column_types(self, schema: str, table: str) -> dict[str, str]:
        """The present types of a table's columns (`DATA_TYPE`), by their names."""
        ...


_INTEGERS = {
    tm.TINY: ("tinyint", 1),
    tm.SHORT: ("smallint", 2),
    tm.INT24: ("mediumint", 3),
    tm.LONG: ("int", 4),
    tm.LONGLONG: ("bigint", 8),
}
_FRACTIONAL = {
    tm.DATETIME2: (Kind.DATETIME, "datetime", 5),
    tm.TIMESTAMP2: (Kind.TIMESTAMP, "timestamp", 4),
    tm.TIME2: (Kind.TIME, "time", 3),
}
_PLAIN = {
    tm.FLOAT: ValueType(Kind.FLOAT, "float", 4),
    tm.DOUBLE: ValueType(Kind.DOUBLE, "double", 8),
    tm.YEAR: ValueType(Kind.YEAR, "year", 1),
    tm.DATE: ValueType(Kind.DATE, "date", 3),
    tm.NEWDATE: ValueType(Kind.DATE, "date", 3),
    tm.DATETIME: ValueType(Kind.OLD_DATETIME, "datetime", 8),
    tm.TIMESTAMP: ValueType(Kind.OLD_TIMESTAMP, "timestamp", 4),
    tm.TIME: ValueType(Kind.OLD_TIME, "time", 3),
}
# The names of a BLOB and a TEXT by the bytes of their length.
_BLOBS = {1: ("tinyblob", "tinytext"), 2: ("blob", "text"), 3: ("mediumblob", "mediumtext"),
          4: ("longblob", "longtext")}  # fmt: skip
_GEOMETRIES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geomcollection",
)  # fmt: skip
# MariaDB's types of fixed size look like BINARY in the log.
_FIXED = {"uuid": (Kind.UUID, 16), "inet6": (Kind.INET6, 16), "inet4": (Kind.INET4, 4)}
# Of packed decimals: the bytes that so many digits take.
DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def describe_types(table: TableMap, catalog: Catalog, *, mariadb: bool) -> tuple[ValueType, ...]:
    """The types of a table's columns.

    Raises:
        FatalError: `mysql.unknown_type` or `mysql.unknown_collation`.
    """
    types = [_describe(table, column, catalog) for column in table.columns]
    if mariadb and any(_may_be_fixed(type_) for type_ in types):
        present = catalog.column_types(table.schema, table.name)
        for index, type_ in enumerate(types):
            kind, size = _FIXED.get(present.get(table.columns[index].name, ""), (None, 0))
            if kind is not None and _may_be_fixed(type_) and type_.pad == size:
                types[index] = ValueType(kind, kind.value, prefix=1, pad=size)
    return tuple(types)


def needs_catalog(types: tuple[ValueType, ...]) -> bool:
    """Whether the catalog had a say in these types, so that they may change without the log."""
    return any(
        _may_be_fixed(type_) or type_.kind in (Kind.UUID, Kind.INET4, Kind.INET6) for type_ in types
    )


def _may_be_fixed(type_: ValueType) -> bool:
    return type_.kind is Kind.BINARY and type_.pad in (4, 16)


def _describe(table: TableMap, column: MappedColumn, catalog: Catalog) -> ValueType:
    kind, meta = column.type, column.metadata
    if kind in _INTEGERS:
        name, size = _INTEGERS[kind]
        name = f"{name} unsigned" if column.unsigned else name
        return ValueType(Kind.INTEGER, name, size, signed=not column.unsigned)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _FRACTIONAL:
        what, name, size = _FRACTIONAL[kind]
        name = f"{name}({meta})" if meta else name
        return ValueType(what, name, size + (meta + 1) // 2, scale=meta)
    if kind == tm.NEWDECIMAL:
        return _decimal(meta >> 8, meta & 0xFF, unsigned=column.unsigned)
    if kind == tm.BIT:
        return ValueType(Kind.BIT, f"bit({meta})", (meta + 7) // 8, digits=meta)
    if kind in (tm.ENUM, tm.SET):
        return _enumeration(column, catalog)
    if kind == tm.JSON:
        return ValueType(Kind.JSON, "json", prefix=meta)
    if kind == tm.GEOMETRY:
        known = column.geometry < len(_GEOMETRIES)
        return ValueType(Kind.GEOMETRY, _GEOMETRIES[column.geometry if known else 0], prefix=meta)
    if kind == tm.VECTOR:
        return ValueType(Kind.VECTOR, f"vector({column.dimensions})", prefix=meta)
    if kind in (tm.VARCHAR, tm.VAR_STRING, tm.STRING, tm.VARCHAR_COMPRESSED):
        return _string(column, catalog)
    if kind in (tm.BLOB, tm.TINY_BLOB, tm.MEDIUM_BLOB, tm.LONG_BLOB, tm.BLOB_COMPRESSED):
        charset = catalog.charset(column.collation)
        name = _BLOBS[meta][charset.is_text]
        compressed = kind == tm.BLOB_COMPRESSED
        if charset.is_text:
            return ValueType(Kind.TEXT, name, prefix=meta, charset=charset, compressed=compressed)
        return ValueType(Kind.BINARY, name, prefix=meta, compressed=compressed)
    raise FatalError(
        "mysql.unknown_type",
        f"the column {column.name} has a type (number {kind}) that is not known",
        where=f"{table.schema}.{table.name}",
        cure="leave the table out of `tables`",
    )


def _decimal(precision: int, scale: int, *, unsigned: bool) -> ValueType:
    size = sum(digits // 9 * 4 + DIGIT_BYTES[digits % 9] for digits in (precision - scale, scale))
    name = f"decimal({precision},{scale})" + (" unsigned" if unsigned else "")
    return ValueType(Kind.DECIMAL, name, size, digits=precision, scale=scale)


def _enumeration(column: MappedColumn, catalog: Catalog) -> ValueType:
    charset = catalog.charset(column.collation)
    values = tuple(charset.decode(value) for value in column.values)
    listed = ",".join("'" + value.replace("'", "''") + "'" for value in values)
    # the second byte of the metadata is the value's size
    size = column.metadata & 0xFF
    if column.type == tm.ENUM:
        return ValueType(Kind.ENUM, f"enum({listed})", size, values=values)
    return ValueType(Kind.SET, f"set({listed})", size, values=values)


def _string(column: MappedColumn, catalog: Catalog) -> ValueType:
    charset = catalog.charset(column.collation)
    length, compressed = column.metadata, column.type == tm.VARCHAR_COMPRESSED
    prefix = 2 if length > 255 else 1
    fixed = column.type == tm.STRING
    if charset.is_text:
        name = f"{'char' if fixed else 'varchar'}({length // charset.longest})"
        return ValueType(Kind.TEXT, name, prefix=prefix, charset=charset, compressed=compressed)
    if fixed:
        return ValueType(Kind.BINARY, f"binary({length})", prefix=prefix, pad=length)
    return ValueType(Kind.BINARY, f"varbinary({length})", prefix=prefix, compressed=compressed)
