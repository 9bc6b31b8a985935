"""The DDL that the sink runs in a target, or tells the owner to run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg import sql

from connectors.postgres.target.foreign_types import postgres_type, type_of_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Column, TableSchema
    from connectors.postgres.target.session import Session

# Names of things in the source's catalog, which the target need not have, and types without input.
_CATALOG_TYPES = re.compile(
    r"reg(class|collation|config|dictionary|namespace|oper|operator|proc|procedure|role|type)\b"
    r"|aclitem\b|gtsvector\b|pg_(node_tree|ndistinct|dependencies|mcv_list|brin_\w+)\b"
)


def type_of(session: Session, column: Column, dialect: str) -> str:
    """The type a column gets in the target: the source's own if it means the same there.

    One of another kind of source becomes what takes all of its values.

    `to_regtype` takes the name of one type and nothing else, so that what it knows is safe DDL.
    """
    as_text = "text[]" if column.json.startswith("array") else "text"
    if dialect in ("mysql", "mariadb"):
        return postgres_type(column.type) or as_text
    if dialect == "json":
        return type_of_json(column.type) or as_text
    if dialect != "postgresql" or not column.portable:
        return as_text
    if _CATALOG_TYPES.match(column.type):
        return as_text
    row = session.execute(b"SELECT to_regtype($1) IS NOT NULL", (column.type,)).fetchone()
    return column.type if row == (True,) else as_text


def create(table: TableSchema, types: Sequence[str]) -> sql.Composed:
    """Make a table of these columns, in the order of their types; no key, no primary key."""
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(type_))
        for column, type_ in zip(table.columns, types, strict=True)
    ]
    if table.key:
        key = sql.SQL(", ").join(map(sql.Identifier, table.key))
        columns.append(sql.SQL("PRIMARY KEY ({})").format(key))
    return sql.SQL("CREATE TABLE {} ({})").format(
        sql.Identifier(table.schema, table.name), sql.SQL(", ").join(columns)
    )


def add(table: TableSchema, columns: Sequence[Column], types: Sequence[str]) -> sql.Composed:
    """Add columns to a table, in the order of their types."""
    added = [
        sql.SQL("ADD COLUMN IF NOT EXISTS {} {}").format(
            sql.Identifier(column.name), sql.SQL(type_)
        )
        for column, type_ in zip(columns, types, strict=True)
    ]
    return sql.SQL("ALTER TABLE {} {}").format(
        sql.Identifier(table.schema, table.name), sql.SQL(", ").join(added)
    )


def retype(
    table: TableSchema, columns: Sequence[tuple[str, str]], *, cast: bool = False
) -> sql.Composed:
    """Give columns, by name, other types.

    Args:
        table: Whose.
        columns: Names and types.
        cast: Convert the values there explicitly, where the server does not by itself.
    """
    parts = []
    for name, type_ in columns:
        part = sql.SQL("ALTER COLUMN {} TYPE {}").format(sql.Identifier(name), sql.SQL(type_))
        if cast:
            part += sql.SQL(" USING {}::{}").format(sql.Identifier(name), sql.SQL(type_))
        parts.append(part)
    return sql.SQL("ALTER TABLE {} {}").format(
        sql.Identifier(table.schema, table.name), sql.SQL(", ").join(parts)
    )


def rekey(table: TableSchema, primary: str | None) -> sql.Composed:
    """Make the shape's key the primary key, in place of the constraint that is there."""
    drop = (
        sql.SQL("DROP CONSTRAINT {}, ").format(sql.Identifier(primary)) if primary else sql.SQL("")
    )
    return sql.SQL("ALTER TABLE {} {}ADD PRIMARY KEY ({})").format(
        sql.Identifier(table.schema, table.name),
        drop,
        sql.SQL(", ").join(map(sql.Identifier, table.key)),
    )


def comment_on_key(table: TableSchema, primary: str, comment: str) -> sql.Composed:
    """Attach a text to a table's primary key."""
    return sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
        sql.Identifier(primary), sql.Identifier(table.schema, table.name), sql.Literal(comment)
    )


def permit_null(table: TableSchema, column: str) -> sql.Composed:
    """Take a column's NOT NULL away."""
    return sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
        sql.Identifier(table.schema, table.name), sql.Identifier(column)
    )
