"""Cuts changes where a table's key becomes another one, free of I/O.

Rows must have all their values before a new key can be made of them: what comes before the change
of a key is stored before the target's key is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Delivered


def cut_at_keys(changes: Sequence[Delivered]) -> list[list[Delivered]]:
    """The changes in their order, in runs in which each table has one key; none is empty."""
    runs: list[list[Delivered]] = []
    keys: dict[tuple[str, str, str], tuple[str, ...]] = {}
    previous: object = None
    start = 0
    for index, change in enumerate(changes):
        table = change.table
        if table is previous or table is None:
            continue
        previous = table
        name = (table.source, table.schema, table.name)
        if keys.setdefault(name, table.key) != table.key:
            runs.append(list(changes[start:index]))
            start = index
            keys = {name: table.key}
    if start < len(changes):
        runs.append(list(changes[start:]))
    return runs
