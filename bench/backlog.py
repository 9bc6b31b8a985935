"""The backlog that every reader gets: one table, loaded once, behind slots that are copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from bench.waiting import wait_until

TABLE = "bench_items"
PUBLICATION = "bench"
_ORIGIN = "bench_origin"

_CREATE = f"""
create table {TABLE} (
    id bigint primary key,
    quantity int not null,
    title text not null,
    created timestamptz not null,
    price numeric(12, 2) not null,
    attributes jsonb not null,
    active boolean not null,
    token uuid not null
)"""

# Every value differs from row to row, texts and JSON in length as well.
_FILL = f"""
insert into {TABLE}
select id,
       (id * 7919 %% 100000)::int,
       'item ' || id || ' ' || repeat('lorem ', (id %% 8)::int),
       timestamptz '2025-01-01 00:00:00+00' + id * interval '1.234567 seconds',
       (id %% 1000000) / 100.0,
       jsonb_build_object('color', (array['red', 'green', 'blue'])[1 + id %% 3],
                          'tags', jsonb_build_array('a' || id %% 17, 'b' || id %% 5),
                          'weight', id %% 977 / 10.0),
       id %% 3 = 0,
       gen_random_uuid()
from generate_series(%s::bigint, %s::bigint) as id"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Committed inserts that lie between a slot nobody reads and the end of the log.

    Attributes:
        dsn: The database's conninfo string.
        changes: How many rows were inserted.
        end: The LSN behind the last of them, as text.
    """

    dsn: str
    changes: int
    end: str

    @contextmanager
    def slot(self, name: str) -> Iterator[str]:
        """A slot of one's own that stands before the first change; dropped in the end."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("select pg_copy_logical_replication_slot(%s, %s)", (_ORIGIN, name))
            try:
                yield name
            finally:
                drop_slot(connection, name)


def create_table(dsn: str) -> None:
    """Create the table of eight mixed columns and its publication."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CREATE)
        connection.execute(f"create publication {PUBLICATION} for table {TABLE}")


def fill(dsn: str, first: int, last: int) -> None:
    """Insert the rows of these ids, in one transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_FILL, (first, last))


def load(dsn: str, changes: int, transaction_rows: int) -> Backlog:
    """Fill the table, `transaction_rows` to a transaction, behind a slot made before.

    Args:
        dsn: A database without the table.
        changes: Rows to insert.
        transaction_rows: Rows of each transaction.
    """
    create_table(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (_ORIGIN,))
        for first in range(1, changes + 1, transaction_rows):
            connection.execute(_FILL, (first, min(first + transaction_rows - 1, changes)))
        connection.execute("checkpoint")
        row = connection.execute("select pg_current_wal_lsn()::text").fetchone()
    assert row is not None  # noqa: S101 - a select without FROM returns a row
    return Backlog(dsn, changes, str(row[0]))


def create_database(dsn: str, name: str) -> None:
    """Create an empty database on the server of `dsn`."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


@contextmanager
def slot_of(dsn: str, name: str) -> Iterator[str]:
    """A slot that begins now and lasts as long as the context; gives its name."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
        try:
            yield name
        finally:
            drop_slot(connection, name)


def drop_slot(connection: psycopg.Connection, name: str) -> None:
    """Drop a slot as soon as its reader has gone; harmless when there is no such slot."""

    def unused() -> bool:
        row = connection.execute(
            "select active from pg_replication_slots where slot_name = %s", (name,)
        ).fetchone()
        return row is None or not row[0]

    wait_until(unused, what=f"slot {name} is still read", timeout=60)
    connection.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
        (name,),
    )
