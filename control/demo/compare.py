"""Compares source and target row by row, those of PostgreSQL as PostgreSQL's own text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from control.demo.shop import Table

_SHOWN = 5
_FETCH = 5000
Row = tuple[object, ...]
_Connection = psycopg.Connection[Row]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it.

    Attributes:
        tables: Tables that were compared.
        rows: Rows of the source that were compared.
        differences: One line each; of every table the first few and the number of the rest.
    """

    tables: int
    rows: int
    differences: list[str]


def compare(source_dsn: str, target_dsn: str, tables: Iterable[Table]) -> Comparison:
    """Compare the whole contents of `tables` in two databases.

    Rows are read in the order of their keys through cursors on the servers, so memory stays flat.
    """
    compared, rows, differences = 0, 0, []
    with psycopg.connect(source_dsn) as source, psycopg.connect(target_dsn) as target:
        for table in tables:
            columns = _columns(source, table)
            missing = set(columns) - set(_columns(target, table))
            if missing:
                differences.append(f"{table.name}: the target lacks {', '.join(sorted(missing))}")
                continue
            ours, theirs = _rows(source, table, columns), _rows(target, table, columns)
            count, found = compare_rows(table, columns, ours, theirs)
            compared, rows = compared + 1, rows + count
            differences += found
    return Comparison(compared, rows, differences)


def compare_rows(
    table: Table, columns: list[str], ours: Iterable[Row], theirs: Iterable[Row]
) -> tuple[int, list[str]]:
    """Compare the rows of a table in two databases.

    Args:
        table: Whose rows they are.
        columns: The names of its columns.
        ours: The source's rows: the text of the key's columns, by which they are sorted, then the
            values of all columns.
        theirs: The target's, likewise.

    Returns:
        How many rows the source has, and the differences: a line each, the first few of them.
    """
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for row in ours:
            count += 1
            yield row

    found = _differences(counted(), iter(theirs), table, columns)
    shown = list(islice(found, _SHOWN))
    more = sum(1 for _ in found)
    if more:
        shown.append(f"{table.name}: and {more} more")
    return count, shown


def _differences(
    left: Iterator[Row], right: Iterator[Row], table: Table, columns: list[str]
) -> Iterator[str]:
    """Merge two sets of rows."""
    width = len(table.key)
    ours, theirs = next(left, None), next(right, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and _key(ours, width) < _key(theirs, width)):
            assert ours is not None  # noqa: S101 - tells mypy what the loop's condition says
            yield f"{table.name} {_key(ours, width)}: missing in the target"
            ours = next(left, None)
        elif ours is None or _key(theirs, width) < _key(ours, width):
            yield f"{table.name} {_key(theirs, width)}: only in the target"
            theirs = next(right, None)
        else:
            for column, one, other in zip(columns, ours[width:], theirs[width:], strict=True):
                if one != other:
                    place = f"{table.name} {_key(ours, width)}.{column}"
                    yield f"{place}: {_short(one)} in the source, {_short(other)} in the target"
            ours, theirs = next(left, None), next(right, None)


def _rows(connection: _Connection, table: Table, columns: list[str]) -> Iterator[Row]:
    """The key's columns, then all columns, as text; sorted by the key's text, byte by byte."""
    text = [sql.SQL("{}::text").format(sql.Identifier(name)) for name in (*table.key, *columns)]
    order = [sql.SQL('{}::text COLLATE "C"').format(sql.Identifier(name)) for name in table.key]
    with connection.cursor(f"compare_{table.name}") as cursor:
        cursor.itersize = _FETCH
        cursor.execute(
            sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
                sql.SQL(", ").join(text),
                sql.Identifier("public", table.name),
                sql.SQL(", ").join(order),
            )
        )
        yield from cursor


def _columns(connection: _Connection, table: Table) -> list[str]:
    rows = connection.execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(%s)"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [f"public.{table.name}"],
    )
    return [str(name) for (name,) in rows]


def _key(row: Row, width: int) -> tuple[str, ...]:
    return tuple(str(value) for value in row[:width])


def _short(value: object) -> str:
    text = "NULL" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
