"""Which types of PostgreSQL fit the values of other sources' types.

Values come as docs/mysql-types.md and docs/rest-source.md say; each type here takes all of them.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"([a-z0-9]+)(?:\(([0-9]+(?:,[0-9]+)?)\))?( unsigned)?")
# `{}` stands for what is in parentheses.
_TYPES = {
    "tinyint": "smallint",
    "smallint": "smallint",
    "mediumint": "integer",
    "int": "integer",
    "bigint": "bigint",
    "float": "real",
    "double": "double precision",
    "decimal": "numeric({})",
    "boolean": "boolean",
    "year": "smallint",
    "date": "date",
    "datetime": "timestamp({}) without time zone",
    "timestamp": "timestamp({}) with time zone",
    # a time of MySQL has up to 838 hours, and a sign
    "time": "interval({})",
    "bit": "bit({})",
    "char": "character varying({})",
    "varchar": "character varying({})",
    "binary": "bytea",
    "varbinary": "bytea",
    "json": "jsonb",
    "vector": "real[]",
    "uuid": "uuid",
    "inet4": "inet",
    "inet6": "inet",
    **dict.fromkeys(("tinyblob", "blob", "mediumblob", "longblob"), "bytea"),
    **dict.fromkeys(
        (
            "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring",
            "multipolygon", "geomcollection",
        ),
        "bytea",
    ),
}  # fmt: skip
_UNSIGNED = {"smallint": "integer", "int": "bigint", "bigint": "numeric(20,0)"}

# Of the dialect `json`: what members of JSON objects are found to be, or are declared as.
_OF_JSON = {
    "integer": "bigint",
    "number": "numeric",
    "double": "double precision",
    "decimal": "numeric",
    "boolean": "boolean",
    "json": "jsonb",
    "timestamp": "timestamp with time zone",
    "date": "date",
    "uuid": "uuid",
}


def type_of_json(type_: str) -> str | None:
    """The type for a column of the dialect `json`; None: text."""
    return _OF_JSON.get(type_)


def postgres_type(type_: str) -> str | None:
    """The type for a column that is declared so in MySQL or MariaDB; None: text.

    Args:
        type_: `Column.type` of a table of the dialect `mysql` or `mariadb`.
    """
    match = _NAME.fullmatch(type_)
    if match is None:
        return None
    name, arguments, unsigned = match.groups()
    if unsigned and name in _UNSIGNED:
        return _UNSIGNED[name]
    # without one, a time has whole seconds
    return _TYPES[name].format(arguments or "0") if name in _TYPES else None
