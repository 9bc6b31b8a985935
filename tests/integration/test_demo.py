"""The demo's parts: what it writes, how it counts and measures, and what its comparison finds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from control.demo import mariadb_shop, shop
from control.demo.compare import compare
from control.demo.mariadb_workload import MariadbWorkload
from control.demo.progress import Progress
from control.demo.shopping import Shopping
from control.demo.workload import Workload

if TYPE_CHECKING:
    from tests.servers.binlog import BinlogFactory
    from tests.servers.postgres import Database, DatabaseFactory

pytestmark = pytest.mark.servers

_SLOT_CHANGES = """
SELECT chr(get_byte(data, 0)) AS kind, count(*)
FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,
     'proto_version', '1', 'publication_names', 'everything')
GROUP BY kind
"""


def test_every_change_of_the_workload_is_counted(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(shop.SCHEMA.encode())
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        slot = f"slot_{database.name}"
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        progress = Progress(database.dsn)  # source and target are one, so each commit is visible
        workload = Workload(database.dsn, 3000, progress, seed=5)
        progress.start()
        workload.start()
        try:
            deadline = time.monotonic() + 30
            while progress.standing().committed < 3000:
                workload.check()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            workload.stop()
            while progress.standing().delivered < progress.standing().committed:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            workload.stop()
            progress.stop()
        logged = {
            str(kind): int(str(count))
            for kind, count in connection.execute(_SLOT_CHANGES, [slot]).fetchall()
        }
    standing = progress.standing()
    assert logged["I"] + logged["U"] + logged["D"] == standing.committed == standing.delivered
    assert min(logged["I"], logged["U"], logged["D"]) > 50
    assert standing.behind_seconds == 0
    assert standing.latencies
    median = standing.percentile(0.5)
    assert median is not None
    assert 0 < median < 1


def test_percentiles_of_nothing() -> None:
    standing = Progress("").standing()
    assert standing.percentile(0.5) is None
    assert (standing.committed, standing.delivered, standing.behind_seconds) == (0, 0, 0.0)


def check_for(workload: Shopping, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        workload.check()
        time.sleep(0.01)


def test_an_error_of_the_workload_is_raised(database: Database) -> None:
    workload = Workload(database.dsn, 100, Progress(database.dsn), seed=1)
    workload.start()  # there are no tables
    with pytest.raises(psycopg.errors.UndefinedTable):
        check_for(workload, 30)


_TABLES = """
CREATE TABLE pairs (a text, b integer, value numeric, note text, PRIMARY KEY (a, b));
INSERT INTO pairs SELECT chr(64 + n), n, n * 1.50, repeat('x', n) FROM generate_series(1, 20) n;
"""
_PAIRS = shop.Table("pairs", ("a", "b"))


def test_equal_databases_agree(database_factory: DatabaseFactory) -> None:
    source, target = database_factory(), database_factory()
    for database in (source, target):
        with database.connect() as connection:
            connection.execute(_TABLES)
    with target.connect() as connection:  # the order in the heap is of no importance
        connection.execute("UPDATE pairs SET note = note WHERE b < 9")
    result = compare(source.dsn, target.dsn, [_PAIRS])
    assert (result.tables, result.rows, result.differences) == (1, 20, [])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("DELETE FROM pairs WHERE b = 1", ["pairs ('A', '1'): missing in the target"]),
        ("DELETE FROM pairs WHERE b = 20", ["pairs ('T', '20'): missing in the target"]),
        ("INSERT INTO pairs VALUES ('@', 0)", ["pairs ('@', '0'): only in the target"]),
        ("INSERT INTO pairs VALUES ('Z', 0)", ["pairs ('Z', '0'): only in the target"]),
        (
            "UPDATE pairs SET value = value * 1.0 WHERE b = 2",  # equal numbers, other digits
            ["pairs ('B', '2').value: '3.00' in the source, '3.000' in the target"],
        ),
        (
            "UPDATE pairs SET note = NULL WHERE b = 3",
            ["pairs ('C', '3').note: 'xxx' in the source, NULL in the target"],
        ),
        ("ALTER TABLE pairs DROP COLUMN note", ["pairs: the target lacks note"]),
        ("DROP TABLE pairs", ["pairs: the target lacks a, b, note, value"]),
    ],
)
def test_a_difference_is_named(
    damage: str, expected: list[str], database_factory: DatabaseFactory
) -> None:
    source, target = database_factory(), database_factory()
    for database in (source, target):
        with database.connect() as connection:
            connection.execute(_TABLES)
    with target.connect() as connection:
        connection.execute(damage.encode())
    assert compare(source.dsn, target.dsn, [_PAIRS]).differences == expected


def test_many_differences_are_summed_up(database_factory: DatabaseFactory) -> None:
    source, target = database_factory(), database_factory()
    for database in (source, target):
        with database.connect() as connection:
            connection.execute(_TABLES)
    with target.connect() as connection:
        connection.execute("TRUNCATE pairs")
    differences = compare(source.dsn, target.dsn, [_PAIRS]).differences
    assert len(differences) == 6
    assert differences[-1] == "pairs: and 15 more"


def test_mariadb_is_compared_with_postgres(
    mariadb_factory: BinlogFactory, database: Database
) -> None:
    source = mariadb_factory()
    mariadb_shop.create(source)
    workload = MariadbWorkload(source, 1000, Progress(database.dsn), seed=3)
    workload.start()
    try:
        check_for(workload, 0.5)
    finally:
        workload.stop()
    pulse, customers = shop.TABLES[-1], shop.TABLES[0]
    with mariadb_shop.connect(source) as session, session.cursor() as cursor:
        cursor.execute("SELECT writer, changes, at FROM pulse")
        row = cursor.fetchone()
        cursor.execute("SELECT count(*) FROM customers")
        (registered,) = cursor.fetchone() or (0,)
    assert row is not None
    with database.connect() as connection:
        connection.execute("CREATE TABLE pulse (writer integer, changes bigint, at timestamp)")
        connection.execute("INSERT INTO pulse VALUES (%s, %s, %s)", row)
        connection.execute(
            "CREATE TABLE customers (id bigint, email text, level text, balance numeric,"
            " tags text, profile text, birthday date, created_at timestamp)"
        )
        same = mariadb_shop.compare(source, database.dsn, [pulse])
        connection.execute("UPDATE pulse SET changes = 1")
        other = mariadb_shop.compare(source, database.dsn, [pulse, customers])
    assert (same.tables, same.rows, same.differences) == (1, 1, [])
    assert (other.tables, other.rows) == (2, 1 + registered)
    first, *rest = other.differences
    assert first == f"pulse ('1',).changes: {row[1]} in the source, 1 in the target"
    assert rest[0] == "customers ('0',): missing in the target"
    assert rest[-1] == f"customers: and {registered - 5} more"
