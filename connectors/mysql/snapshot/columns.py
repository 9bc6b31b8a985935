"""A table as the catalog describes it, in the words of the log.

The log describes a table by a TABLE_MAP event; what is made here of `information_schema` is such an
event's content, so that both ways lead to the same types, names and keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from connectors.errors import FatalError
from connectors.mysql.binlog import tablemap as tm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INTEGERS = {
    "tinyint": tm.TINY,
    "smallint": tm.SHORT,
    "mediumint": tm.INT24,
    "int": tm.LONG,
    "bigint": tm.LONGLONG,
}
_PLAIN = {"float": tm.FLOAT, "double": tm.DOUBLE, "year": tm.YEAR, "date": tm.DATE}
_FRACTIONAL = {"datetime": tm.DATETIME2, "timestamp": tm.TIMESTAMP2, "time": tm.TIME2}
_STRINGS = {
    "char": tm.STRING,
    "binary": tm.STRING,
    "varchar": tm.VARCHAR,
    "varbinary": tm.VARCHAR,
}
_BLOBS = {"tiny": 1, "": 2, "medium": 3, "long": 4}
_GEOMETRIES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geomcollection",
)  # fmt: skip
# Like BINARY in MariaDB's log.
_FIXED = {"uuid": 16, "inet6": 16, "inet4": 4}
_MEMBER = re.compile(r"'((?:[^']|'')*)'")
_ESCAPED = re.compile(r"\\(.)|''", re.DOTALL)
_CONTROLS = {"0": "\0", "n": "\n", "r": "\r"}


class CatalogColumn(NamedTuple):
    """A column of `information_schema.COLUMNS`.

    Attributes:
        name: `COLUMN_NAME`.
        data_type: `DATA_TYPE`.
        column_type: `COLUMN_TYPE`.
        octets: `CHARACTER_OCTET_LENGTH`; 0 where there is none.
        precision: `NUMERIC_PRECISION`, likewise.
        scale: `NUMERIC_SCALE`, likewise.
        fraction: `DATETIME_PRECISION`, likewise.
        charset: `CHARACTER_SET_NAME`; empty: it has none.
        key: Whether it is a part of the key.
    """

    name: str
    data_type: str
    column_type: str
    octets: int
    precision: int
    scale: int
    fraction: int
    charset: str
    key: bool

    @property
    def zerofill(self) -> bool:
        """Whether numbers are shown with leading zeros."""
        return "zerofill" in self.column_type


def table_map(
    schema: str,
    name: str,
    columns: Sequence[CatalogColumn],
    key: Sequence[str],
    collation: Callable[[str], int],
) -> tm.TableMap:
    """What the log would describe a table by.

    Args:
        schema: Its database.
        name: Its name.
        columns: In their order.
        key: Names of the key's columns, in the key's order.
        collation: Tells the number of a collation of a character set.

    Raises:
        FatalError: `mysql.unknown_type`.
    """
    places = {column.name: index for index, column in enumerate(columns)}
    mapped = [_mapped(schema, name, column, collation) for column in columns]
    return tm.TableMap(schema, name, mapped, tuple(places[each] for each in key), named=True)


def members(column_type: str) -> tuple[str, ...]:
    """The values of an ENUM or a SET, from its `COLUMN_TYPE`.

    MySQL source, sql/sql_show.cc (`append_unescaped`): quotes are doubled, some characters have a
    backslash before them.
    """
    inside = column_type[column_type.index("(") + 1 : column_type.rindex(")")]
    return tuple(_ESCAPED.sub(_character, found) for found in _MEMBER.findall(inside))


def _character(match: re.Match[str]) -> str:
    return _CONTROLS.get(match[1], match[1]) if match[1] else "'"


def _mapped(
    schema: str, table: str, column: CatalogColumn, collation: Callable[[str], int]
) -> tm.MappedColumn:
    kind, name = column.data_type, column.name
    unsigned = "unsigned" in column.column_type
    if kind in _INTEGERS:
        return tm.MappedColumn(_INTEGERS[kind], 0, name, unsigned)
    if kind in _PLAIN:
        return tm.MappedColumn(_PLAIN[kind], 0, name)
    if kind in _FRACTIONAL:
        return tm.MappedColumn(_FRACTIONAL[kind], column.fraction, name)
    if kind == "decimal":
        return tm.MappedColumn(
            tm.NEWDECIMAL, column.precision << 8 | column.scale, name, unsigned=unsigned
        )
    if kind == "bit":
        return tm.MappedColumn(tm.BIT, column.precision, name)
    if kind in ("enum", "set"):
        values = tuple(value.encode() for value in members(column.column_type))
        type_ = tm.ENUM if kind == "enum" else tm.SET
        return tm.MappedColumn(type_, 0, name, collation=collation("utf8mb4"), values=values)
    charset = collation(column.charset or "binary")
    if kind in _STRINGS:
        return tm.MappedColumn(_STRINGS[kind], column.octets, name, collation=charset)
    if kind in _FIXED:
        return tm.MappedColumn(tm.STRING, _FIXED[kind], name, collation=charset)
    if kind.endswith(("blob", "text")):
        return tm.MappedColumn(tm.BLOB, _BLOBS[kind[:-4]], name, collation=charset)
    if kind == "json":
        return tm.MappedColumn(tm.JSON, 4, name)
    if kind in _GEOMETRIES or kind == "geometrycollection":
        known = "geomcollection" if kind == "geometrycollection" else kind
        return tm.MappedColumn(tm.GEOMETRY, 4, name, geometry=_GEOMETRIES.index(known))
    if kind == "vector":
        dimensions = int(column.column_type[column.column_type.index("(") + 1 : -1])
        return tm.MappedColumn(tm.VECTOR, 4, name, dimensions=dimensions)
    raise FatalError(
        "mysql.unknown_type",
        f"the column {name} has a type ({kind}) that is not known",
        where=f"{schema}.{table}",
        cure="leave the table out of `tables`",
    )
