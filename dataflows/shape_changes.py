"""Changes of tables' shapes: found in what a source captures, and told on a topic of their own.

A shape that a table did not have before is a message of the op `m`, right before the first change
that was written under it: with the same position, and in the same atomic batch. A DDL statement,
where a source's log holds them, is a message of that topic at a place of its own.
"""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.changes import DDL, Change
from connectors.subjects import change_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.contracts.changes import TableSchema
    from connectors.jetstream.shape_versions import Version

_TABLE: Callable[[Change], TableSchema | None] = attrgetter("table")
_NONE = object()


class _Origin(msgspec.Struct):
    """What an envelope says of where a change comes from."""

    source: msgspec.Raw = msgspec.Raw(b"null")
    transaction: msgspec.Raw = msgspec.Raw(b"null")


def first_of_shapes(changes: Sequence[Change]) -> list[Change]:
    """The changes whose table has another shape than the one before in it, and DDL statements."""
    found = []
    previous: object = _NONE
    hashes: dict[tuple[str, str], str] = {}
    # Neighbours mostly share a table: what is done for each change must cost next to nothing.
    for index, table in enumerate(map(_TABLE, changes)):
        if table is previous:
            continue
        if table is None:
            if changes[index].op == DDL:
                found.append(changes[index])
            continue
        previous = table
        name = (table.schema, table.name)
        if hashes.get(name) != table.hash:
            hashes[name] = table.hash
            found.append(changes[index])
    return found


def rows_of(changes: list[Change], tellable: Sequence[Change]) -> list[Change]:
    """A chunk's changes without the DDL statements, which no pipeline is given.

    Args:
        changes: All of them.
        tellable: What `first_of_shapes` found among them.
    """
    if not any(change.op == DDL for change in tellable):
        return changes
    return [change for change in changes if change.op != DDL]


def statement(change: Change) -> Change:
    """The message that tells of a DDL statement, as it is stored."""
    return change._replace(op="m")


def event(change: Change, version: Version, before: TableSchema | None) -> Change:
    """The message that tells of a shape.

    Args:
        change: The first one that was written under it.
        version: The shape's.
        before: The table's shape before; None: it had none.

    Returns:
        A logical message with the member `schema_change`.
    """
    table = change.table
    if table is None:
        raise ValueError("a logical message has no shape")
    origin = msgspec.json.decode(change.envelope, type=_Origin)
    told: dict[str, object] = {
        "kind": "create" if before is None else "alter",
        "source": table.source,
        "schema": table.schema,
        "table": table.name,
        "version": version.number,
        "hash": version.hash,
        "position": change.position,
        "dialect": table.dialect,
        "before": None if before is None else _shape(before),
        "after": _shape(table),
        "changes": differences(before, table),
    }
    envelope = {
        "before": None,
        "after": None,
        "source": origin.source,
        "op": "m",
        "ts_ms": time.time_ns() // 1_000_000,
        "transaction": origin.transaction,
        "schema_change": told,
    }
    return Change(
        op="m",
        table=None,
        position=change.position,
        key=None,
        transaction=change.transaction,
        last=False,
        envelope=msgspec.json.encode(envelope),
    )


def differences(before: TableSchema | None, after: TableSchema) -> dict[str, object]:
    """What changed from one shape to the next; a renamed column is dropped and added."""
    old = {column.name: column for column in before.columns} if before else {}
    new = {column.name: column for column in after.columns}
    return {
        "added": [name for name in new if name not in old],
        "dropped": [name for name in old if name not in new],
        "retyped": [
            {"name": name, "before": old[name].type, "after": new[name].type}
            for name in new
            if name in old and old[name].type != new[name].type
        ],
        "key": before is not None and before.key != after.key,
    }


def told(
    source: str,
    topic: str,
    messages: Sequence[tuple[str, Change]],
    events: Sequence[Change],
) -> list[tuple[str, Change]]:
    """Messages with events among them, each before the first message of its position or later.

    Args:
        source: The source's name.
        topic: Of the events.
        messages: In log order.
        events: In log order.
    """
    subject = change_subject(source, topic, 0)
    merged: list[tuple[str, Change]] = []
    start = 0
    for each in events:
        end = start
        while end < len(messages) and messages[end][1].position < each.position:
            end += 1
        merged += messages[start:end]
        merged.append((subject, each))
        start = end
    return [*merged, *messages[start:]]


def _shape(table: TableSchema) -> dict[str, object]:
    return {
        "columns": [{"name": column.name, "type": column.type} for column in table.columns],
        "key": table.key,
    }
