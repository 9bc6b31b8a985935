"""Whether the target equals the source, row by row, all columns as text."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.e2e import shop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.shop import Table

Digests = dict[tuple[str, ...], str]
Change = tuple[tuple[str, ...], str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows in which target and source differ.

    Attributes:
        table: The table.
        missing: Keys of rows that only the source has.
        surplus: Keys of rows that only the target has.
        changed: For rows of both that differ: key, column, source's and target's text.
    """

    table: Table
    missing: list[tuple[str, ...]]
    surplus: list[tuple[str, ...]]
    changed: list[Change]

    def __str__(self) -> str:
        return (
            f"{self.table.schema}.{self.table.name}: {len(self.missing)} missing"
            f" {self.missing[:3]}, {len(self.surplus)} surplus {self.surplus[:3]}, changed "
            + "; ".join(
                f"{key} {column}: {(a or 'NULL')[:80]!r} became {(b or 'NULL')[:80]!r}"
                for key, column, a, b in self.changed[:3]
            )
        )


def differences(
    source: str, target: str, tables: Sequence[Table] = shop.TABLES
) -> list[Difference]:
    """Compare two databases row by row, all columns as text.

    Args:
        source: The source's DSN.
        target: The target's DSN.
        tables: What to compare; a table that the target lacks counts as empty.
    """
    with (
        closing(psycopg.connect(source, autocommit=True)) as left,
        closing(psycopg.connect(target, autocommit=True)) as right,
    ):
        found = []
        for table in tables:
            columns = _columns(left, table)
            difference = _compare(table, columns, _digests(left, table, columns), left, right)
            if difference is not None:
                found.append(difference)
        return found


def await_agreement(
    source: str, target: str, tables: Sequence[Table] = shop.TABLES, *, patience: float = 90.0
) -> None:
    """Return once target equals source.

    Raises:
        AssertionError: It does not; names the differences.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            found = differences(source, target, tables)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            found = []
        else:
            if not found:
                return
        if time.monotonic() > deadline:
            told = "\n".join(map(str, found))
            raise AssertionError(f"target and source differ after {patience} s:\n{told}")
        time.sleep(0.1)


def count_rows(dsn: str, tables: Sequence[Table] = shop.TABLES) -> int:
    """How many rows the tables hold together."""
    total = 0
    with psycopg.connect(dsn) as connection:
        for table in tables:
            row = connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(table.identifier)
            ).fetchone()
            assert row is not None
            total += int(row[0])
    return total


def _columns(connection: psycopg.Connection[tuple[object, ...]], table: Table) -> list[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum",
        [table.identifier.as_string()],
    ).fetchall()
    return [str(name) for (name,) in rows]


def _digests(
    connection: psycopg.Connection[tuple[object, ...]], table: Table, columns: Sequence[str]
) -> Digests:
    """A digest of each row's columns as text, by the key as text."""
    connection.execute("SET timezone = 'UTC'")
    query = sql.SQL("SELECT md5(ROW({})::text), {} FROM {}").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns),
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.key),
        table.identifier,
    )
    rows = connection.execute(query).fetchall()
    digests = {tuple(str(part) for part in key): str(digest) for digest, *key in rows}
    assert len(digests) == len(rows), f"{table.name} holds a key twice"
    return digests


def _compare(
    table: Table,
    columns: Sequence[str],
    left_rows: Digests,
    left: psycopg.Connection[tuple[object, ...]],
    right: psycopg.Connection[tuple[object, ...]],
) -> Difference | None:
    try:
        right_rows = _digests(right, table, columns)
    except psycopg.errors.UndefinedTable:
        right_rows = {}
    if left_rows == right_rows:
        return None
    changed: list[Change] = []
    for key in left_rows.keys() & right_rows.keys():
        if left_rows[key] != right_rows[key] and len(changed) < 10:
            changed += _changed(table, columns, key, left, right)
    return Difference(
        table,
        sorted(left_rows.keys() - right_rows.keys()),
        sorted(right_rows.keys() - left_rows.keys()),
        changed,
    )


def _changed(
    table: Table,
    columns: Sequence[str],
    key: tuple[str, ...],
    left: psycopg.Connection[tuple[object, ...]],
    right: psycopg.Connection[tuple[object, ...]],
) -> list[Change]:
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns),
        table.beside_parameters,
        sql.SQL(" AND ").join(
            sql.SQL("{}::text = %s").format(sql.Identifier(name)) for name in table.key
        ),
    )
    rows = [connection.execute(query, key).fetchone() for connection in (left, right)]
    if rows[0] is None or rows[1] is None:
        return []
    return [
        (key, column, None if a is None else str(a), None if b is None else str(b))
        for column, a, b in zip(columns, rows[0], rows[1], strict=True)
        if a != b
    ]
