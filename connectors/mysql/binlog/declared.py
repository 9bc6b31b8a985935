"""A table as the server declares it at present: the shape of one that the log has not described.

Only a TRUNCATE needs it, because the log describes a table where its rows are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from connectors.contracts.changes import Column, TableSchema

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMENT = re.compile(r"\s*/\*.*?\*/")
_INTEGER = re.compile(r"(tinyint|smallint|mediumint|int|bigint)(?:\([0-9]+\))?( unsigned)?.*")
_REAL = re.compile(r"(float|double)\b.*")
_DECIMAL = re.compile(r"(decimal\([0-9]+,[0-9]+\))( unsigned)?.*")
_YEAR = re.compile(r"year\([0-9]+\)")
_NUMBERS = {"tinyint", "smallint", "mediumint", "int", "bigint", "float", "double", "year"}
_BYTES = {
    "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "geometry", "point",
    "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection",
}  # fmt: skip


class DeclaredColumn(NamedTuple):
    """A column of `information_schema.COLUMNS`.

    Attributes:
        name: `COLUMN_NAME`.
        type: `COLUMN_TYPE`.
        key: Whether it is a part of the primary key.
    """

    name: str
    type: str
    key: bool


def declared_schema(
    source: str, schema: str, name: str, columns: Sequence[DeclaredColumn], dialect: str
) -> TableSchema:
    """The shape, with types named as the log's decoder names them."""
    types = [_type(column.type) for column in columns]
    return TableSchema(
        source=source,
        schema=schema,
        name=name,
        columns=tuple(
            Column(column.name, type_, _json(type_))
            for column, type_ in zip(columns, types, strict=True)
        ),
        key=tuple(column.name for column in columns if column.key),
        dialect=dialect,
    )


def _type(declared: str) -> str:
    text = _COMMENT.sub("", declared)
    if text.startswith(("enum(", "set(")):
        return text
    text = text.lower()
    for pattern in (_INTEGER, _DECIMAL):
        match = pattern.fullmatch(text)
        if match:
            unsigned = match[2] or (" unsigned" if "zerofill" in text else "")
            return match[1] + unsigned
    if real := _REAL.fullmatch(text):
        return real[1]
    if text == "geometrycollection":
        return "geomcollection"
    return "year" if _YEAR.fullmatch(text) else text


def _json(type_: str) -> str:
    word = type_.partition("(")[0].partition(" ")[0]
    if word in _NUMBERS:
        return "number"
    if word in _BYTES:
        return "base64"
    return {"json": "json", "vector": "array"}.get(word, "string")
