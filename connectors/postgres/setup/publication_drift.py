"""What others have changed about a publication while it is read from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from connectors.postgres.server import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from connectors.postgres.server import Connection
    from connectors.postgres.setup.publication import Publication

_LISTS_SINCE = 150000
_LISTS = """
SELECT n.nspname::text, c.relname::text, r.prattrs::text, pg_get_expr(r.prqual, r.prrelid)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = %s
"""

Table = tuple[str, str]


class Terms(NamedTuple):
    """What is published of the captured tables.

    Attributes:
        tables: Those that are published.
        columns: Of each that is listed with a list of columns or a row filter: the list.
        filters: The same tables' row filters.
        operations: What is published of insert, update, delete, truncate.
        via_root: Whether partitions appear under their root's name.
    """

    tables: frozenset[Table]
    columns: dict[Table, object]
    filters: dict[Table, object]
    operations: frozenset[str]
    via_root: bool


def terms(connection: Connection, found: Publication, wanted: Callable[[str, str], bool]) -> Terms:
    """What is published now.

    Raises:
        RetryableError: The connection broke.
    """
    lists: list[tuple[object, ...]] = []
    if connection.info.server_version >= _LISTS_SINCE:
        lists = rows(connection, _LISTS, found.name)
    return Terms(
        frozenset(table for table in found.published if wanted(*table)),
        {(str(schema), str(name)): columns for schema, name, columns, _ in lists},
        {(str(schema), str(name)): condition for schema, name, _, condition in lists},
        found.operations,
        found.via_root,
    )


def changes(before: Terms, now: Terms, existing: Iterable[Table]) -> list[str]:
    """What a reader misses, or gets otherwise, since the terms have changed, in words."""
    told = []
    gone = [_named(table) for table in sorted((before.tables - now.tables) & set(existing))]
    if gone:
        told.append(f"{', '.join(gone)}: no longer published, changes are missing from now on")
    both = sorted(before.tables & now.tables)
    for what, old, new in (
        ("list of columns", before.columns, now.columns),
        ("row filter", before.filters, now.filters),
    ):
        altered = [_named(table) for table in both if old.get(table) != new.get(table)]
        if altered:
            told.append(f"{', '.join(altered)}: another {what} from now on")
    if missing := before.operations - now.operations:
        told.append(f"{', '.join(sorted(missing))}: no longer published")
    if before.via_root != now.via_root:
        how = "under their table's name" if now.via_root else "one by one"
        told.append(f"partitions are published {how} from now on")
    return told


def _named(table: Table) -> str:
    return ".".join(table)
