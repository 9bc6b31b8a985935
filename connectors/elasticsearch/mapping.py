"""From a table's shape to the mapping of its index.

`docs/elasticsearch-sink.md` tells the same as a table. A value that suits a column of the source
but not the field's index (`NaN`, `infinity`, years past what a date can be) is kept in the document
and left out of the index: `ignore_malformed`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from connectors.contracts.changes import Column, TableSchema

_MODIFIER = re.compile(r"\(.*?\)")
# Lucene's limit is 32,766 bytes, and a character has up to four.
_LONGEST_WORD = 8191
_WHOLE = {
    "smallint": "short", "int2": "short", "tinyint": "short",
    "integer": "integer", "int": "integer", "int4": "integer", "mediumint": "integer",
}  # fmt: skip
_NUMBERS = {
    **_WHOLE,
    "bigint": "long", "int8": "long", "oid": "long",
    "real": "float", "float4": "float", "float": "float",
}  # fmt: skip
_DATES = {
    "date", "timestamp", "timestamp without time zone", "timestamp with time zone", "timestamptz",
    "datetime",
}  # fmt: skip
_TEXTS = {
    "text", "string", "character varying", "varchar", "character", "char", "bpchar", "xml",
    "tinytext", "mediumtext", "longtext",
}  # fmt: skip

# Each holds the values of those behind it, and of theirs.
_HELD = {
    "short": ("byte",),
    "integer": ("short",),
    "long": ("integer",),
    "unsigned_long": (),
    "float": ("short", "half_float"),
    "double": ("integer", "float", "long", "scaled_float"),
    "scaled_float": ("integer", "float", "double", "long"),
    "date_nanos": ("date",),
}
# Any single value as the text that it is.
_WORDS = {"keyword", "text", "wildcard", "constant_keyword", "match_only_text"}


def holds(found: Mapping[str, JsonValue], wanted: Mapping[str, JsonValue]) -> bool:
    """Whether a field that a mapping has indexes all values of the one that a column needs.

    Args:
        found: The field as the mapping has it; no `type` means an object.
        wanted: The field as `properties` makes it.
    """
    have, need = str(found.get("type", "object")), str(wanted.get("type", "object"))
    if found.get("enabled") is False or have == need:
        return True
    if need == "object":
        return False
    return have in _WORDS or _within(have, need)


def _within(have: str, need: str) -> bool:
    seen: set[str] = set()
    open_ = [have]
    while open_:
        kind = open_.pop()
        if kind not in seen:
            seen.add(kind)
            open_ += _HELD.get(kind, ())
    return need in seen


def properties(
    table: TableSchema, given: Mapping[str, Mapping[str, JsonValue]]
) -> dict[str, dict[str, JsonValue]]:
    """The `properties` of a mapping: one field for each column.

    Args:
        table: The shape.
        given: Mappings that the owner has chosen, by column.
    """
    return {
        column.name: dict(
            given.get(column.name)
            or _field(column, column.name in table.key, exact=table.dialect != "json")
        )
        for column in table.columns
    }


def _field(column: Column, key: bool, *, exact: bool = True) -> dict[str, JsonValue]:
    """The field of a column; where a type is not exact, `integer` is any whole number."""
    kind = column.json.removeprefix("array:")
    if kind == "json":
        # Any JSON value, whatever the next row's is: an index of its insides would refuse some.
        return {"type": "object", "enabled": False}
    if kind == "base64":
        return {"type": "binary"}
    # Of a list, what its elements are: every field of Elasticsearch may hold several.
    name = " ".join(_MODIFIER.sub("", column.type).removesuffix("[]").lower().split())
    if column.json == "boolean" or (kind == "array" and name in ("boolean", "bool")):
        return {"type": "boolean"}
    if not column.portable:
        return _word()
    if column.json == "number" or name in _NUMBERS or name == "double precision":
        number = "long" if name == "integer" and not exact else _NUMBERS.get(name, "double")
        return {"type": number, "ignore_malformed": True}
    if name in ("numeric", "decimal"):
        return {"type": "double", "ignore_malformed": True}
    if name in _DATES:
        return {"type": "date", "ignore_malformed": True}
    if name == "inet":
        return {"type": "ip", "ignore_malformed": True}
    if name in _TEXTS and not key:
        word: dict[str, JsonValue] = {"keyword": {"type": "keyword", "ignore_above": 256}}
        return {"type": "text", "fields": word}
    return _word()


def _word() -> dict[str, JsonValue]:
    return {"type": "keyword", "ignore_above": _LONGEST_WORD}
