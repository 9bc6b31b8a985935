"""Changes of a small table as a source would hand them out, and what a target makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from connectors.contracts.changes import Change, Column, TableSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SUBJECT = "CDC.shop.db.users.0"


def table(*columns: str, name: str = "users") -> TableSchema:
    """A table whose first column is its key."""
    return TableSchema(
        "shop",
        "public",
        name,
        tuple(Column(column, "text") for column in columns),
        columns[:1],
    )


USERS = table("id", "name", "seen")


def change(
    op: str,
    number: int,
    after: Mapping[str, object] | None,
    before: Mapping[str, object] | None = None,
    *,
    at: int = 0,
    schema: TableSchema = USERS,
    unavailable: tuple[str, ...] = (),
    json_nulls: tuple[str, ...] = (),
    failed: str = "",
) -> Change:
    """A change in a transaction of its own, the `number`th of its source."""
    row = after or before
    key = None
    if row is not None:
        key = json.dumps({name: row[name] for name in schema.key}, separators=(",", ":"))
    source = {"ts_ms": at, "schema": schema.schema, "table": schema.name}
    envelope = {"before": before, "after": after, "source": source, "op": op, "ts_ms": 1}
    text = json.dumps(envelope, separators=(",", ":"), ensure_ascii=False)
    return Change(
        op,
        schema,
        f"{number:016X}-00000000",
        key,
        str(number),
        True,
        text.encode(),
        unavailable,
        json_nulls,
        failed,
    )


def apply(changes: Iterable[Change]) -> dict[str, dict[str, object]]:
    """The rows that a target of upserts and deletes has in the end, by their key."""
    rows: dict[str, dict[str, object]] = {}
    for each in changes:
        if each.op == "t":
            rows.clear()
            continue
        assert each.key is not None
        envelope = json.loads(each.envelope)
        before, after = envelope["before"], envelope["after"]
        if each.table is not None and before is not None:
            former = json.dumps({n: before[n] for n in each.table.key}, separators=(",", ":"))
            rows.pop(former, None)
        if after is None:
            rows.pop(each.key, None)
        else:
            rows[each.key] = after
    return rows
