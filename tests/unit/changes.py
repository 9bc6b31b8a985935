"""Changes for the tests of pipelines."""

from __future__ import annotations

import json
from typing import Any

from connectors.contracts.changes import Change, Column, Delivered, TableSchema

USERS = TableSchema(
    "shop",
    "public",
    "users",
    (
        Column("id", "bigint", "number"),
        Column("email", "text"),
        Column("amount", "numeric(10,2)"),
        Column("active", "boolean", "boolean"),
        Column("doc", "jsonb", "json"),
        Column("note", "text"),
    ),
    ("id",),
)
ROW = (
    '{"id":8,"email":"ada@example.org","amount":"12.50","active":true,'
    '"doc":{"a":{"b":1.10},"l":[1, 2]},"note":"größe"}'
)


def envelope(op: str, before: str = "null", after: str = "null", table: str = "users") -> bytes:
    source = f'{{"name":"shop","schema":"public","table":"{table}","lsn":7}}'
    return (
        f'{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":1,'
        f'"transaction":{{"id":"5","total_order":1}}}}'
    ).encode()


def change(
    op: str = "c",
    *,
    before: str = "null",
    after: str = ROW,
    table: TableSchema = USERS,
    key: str | None = '{"id":8}',
    position: str = "1",
    transaction: str = "5",
    last: bool = False,
    unavailable: tuple[str, ...] = (),
    json_nulls: tuple[str, ...] = (),
) -> Change:
    after = "null" if op in ("d", "t") else after
    data = envelope(op, before, after, table.name)
    return Change(
        op, table, position, key, transaction, last, data, unavailable, json_nulls
    )  # fmt: skip


def delivered(given: Change, subject: str = "CDC.shop.db.users.0", sequence: int = 3) -> Delivered:
    return Delivered(sequence, subject, given.position, given.key, given.table, *given[4:])


def row(given: Change | Delivered, which: str = "after") -> dict[str, Any]:
    """A row of a change, read."""
    found = json.loads(given.envelope)[which]
    assert isinstance(found, dict)
    return found


def columns(given: Change | Delivered) -> dict[str, str]:
    """The columns of a change's shape, with their types."""
    assert given.table is not None
    return {column.name: column.type for column in given.table.columns}
