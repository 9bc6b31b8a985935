"""Values that the log left out, read from the table."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from structlog.testing import capture_logs

from connectors.contracts.changes import CHUNK_BYTES, UNAVAILABLE
from connectors.errors import ConfigError, FatalError
from tests.integration.postgres_capture import after, make_source, read_changes, read_until
from tests.integration.postgres_snapshots import ask, run, waiting_for_standbys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.changes import Change
    from connectors.contracts.source import SourceReader
    from control.servers.postgres import PostgresServer
    from tests.servers.postgres import Database, DatabaseFactory

pytestmark = pytest.mark.servers
_LARGE = "repeat(md5(id::text), 100)"


@pytest.fixture
def items(database: Database) -> Database:
    """Two rows with a large value each."""
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY, n int, body text, doc jsonb, raw bytea)",
        "ALTER TABLE items ALTER body SET STORAGE EXTERNAL",
        "ALTER TABLE items ALTER doc SET STORAGE EXTERNAL",
        "ALTER TABLE items ALTER raw SET STORAGE EXTERNAL",
        f"INSERT INTO items SELECT id, 0, {_LARGE}, jsonb_build_object('a', {_LARGE}, 'é\"', NULL),"
        f" {_LARGE}::bytea FROM generate_series(1, 2) id",
    )
    return database


@pytest.fixture
def reader(items: Database) -> Iterator[SourceReader]:
    with closing(make_source(items.dsn, items.name, toast="reselect").open(None)) as reader:
        yield reader


def test_a_row_is_whole_and_as_an_insert_tells_it(items: Database, reader: SourceReader) -> None:
    run(
        items,
        "UPDATE items SET n = 1",
        "INSERT INTO items SELECT id + 2, 1, body, doc, raw FROM items",
    )
    updates, inserts = (lambda found: (found[:2], found[2:]))(read_changes(reader, 4))
    assert [change.op for change in updates + inserts] == ["u", "u", "c", "c"]
    for update, insert in zip(updates, inserts, strict=True):
        assert update.unavailable == ()
        told = after(update)
        assert told | {"id": 0} == after(insert) | {"id": 0}
        assert list(told) == ["id", "n", "body", "doc", "raw"]
        assert list(json.loads(update.envelope)) == list(json.loads(insert.envelope))


def test_what_cannot_be_read_stays_marked(items: Database, reader: SourceReader) -> None:
    with psycopg.connect(items.dsn) as connection:
        connection.execute("UPDATE items SET n = 1")
        connection.execute("DELETE FROM items WHERE id = 1")
        connection.execute("UPDATE items SET id = 7, n = 2 WHERE id = 2")
    first, second, _, moved = read_changes(reader, 4)
    assert first.unavailable == second.unavailable == ("body", "doc", "raw")
    assert after(first)["body"] == UNAVAILABLE
    # The new key is the one that the row has.
    assert moved.unavailable == ()
    assert str(after(moved)["body"]).startswith("c81e728d9d4c2f636f067f89cc14862c")


def test_columns_that_were_altered_meanwhile(items: Database, reader: SourceReader) -> None:
    with psycopg.connect(items.dsn) as connection:
        connection.execute("UPDATE items SET n = 1 WHERE id = 1")
        connection.execute("ALTER TABLE items DROP COLUMN raw")
        connection.execute("ALTER TABLE items ALTER doc TYPE text")
    (change,) = read_changes(reader, 1)
    assert change.unavailable == ("doc", "raw")
    assert str(after(change)["body"]).startswith("c4ca4238a0b923820dcc509a6f75849b")
    run(items, "UPDATE items SET n = 2 WHERE id = 2", "DROP TABLE items")
    (change,) = read_changes(reader, 1)
    assert change.unavailable == ("body",)


def test_keys_of_every_kind_are_found(database: Database) -> None:
    kinds = {
        "k1": ("text, u uuid", "'it''s \\ \"quoted\" é', gen_random_uuid()", "k, u"),
        "k2": ("bytea", "'\\x00ff5c27'::bytea", "k"),
        "k3": ("numeric(30,10)", "12345678901234567890.0123456789", "k"),
        "k4": ("timestamptz, d timestamp", "'infinity', '2001-02-03 04:05:06.789 BC'", "k, d"),
        "k5": ("boolean, f float8, j date", "true, 'NaN', '4713-01-01 BC'", "k, f, j"),
        "k6": ("interval, i inet", "'1 year 2 days 3.5 s', '::1/64'", "k, i"),
        "K 7": ('"char", b bit varying', "'x', B'101'", "k, b"),
    }
    for name, (columns, values, key) in kinds.items():
        run(
            database,
            f'CREATE TABLE "{name}" (k {columns}, n int DEFAULT 0, "Bo dy" text,'
            f" PRIMARY KEY ({key}))",
            f'ALTER TABLE "{name}" ALTER "Bo dy" SET STORAGE EXTERNAL',
            f"INSERT INTO \"{name}\" VALUES ({values}, 0, repeat('x', 5000))",
        )
    run(
        database,
        "CREATE TABLE parts (id int PRIMARY KEY, n int, body text) PARTITION BY RANGE (id)",
        "CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE part ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO parts VALUES (1, 0, repeat('y', 5000))",
    )
    source = make_source(database.dsn, database.name, toast="reselect")
    with closing(source.open(None)) as reader:
        for name in kinds:
            run(database, f'UPDATE "{name}" SET n = 1')
        run(database, "UPDATE parts SET n = 1")
        changes = read_changes(reader, len(kinds) + 1)
    unfilled = [change.key for change in changes if change.unavailable]
    assert unfilled == []
    assert after(changes[-1])["body"] == "y" * 5000


def test_many_large_values_come_in_parts_that_resume(database: Database) -> None:
    """40 MiB in one chunk of the log."""
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY, n int, body text)",
        "ALTER TABLE items ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO items SELECT id, 0, repeat(chr(64 + id % 20), 1048576)"
        " FROM generate_series(1, 40) id",
    )
    source = make_source(database.dsn, database.name, toast="reselect")
    with closing(source.open(None)) as reader:
        (first,) = read_until(reader, bool)
        run(database, "UPDATE items SET n = 1")
        told: list[Change] = []
        largest = 0
        checkpoint = first.checkpoint
    while len(told) < 40:
        # Another process goes on behind each part.
        with closing(source.open(checkpoint)) as reader:
            (chunk,) = read_until(reader, lambda seen: bool(seen and seen[-1].changes))[-1:]
        told += chunk.changes
        checkpoint = chunk.checkpoint
        largest = max(largest, sum(len(change.envelope) for change in chunk.changes))
    assert [after(change)["id"] for change in told] == list(range(1, 41))
    assert all(not change.unavailable for change in told)
    assert [change.last for change in told] == [False] * 39 + [True]
    assert largest <= 2 * CHUNK_BYTES + 1024 * 1024


def test_a_row_is_not_read_before_the_change_is_visible(
    mortal_postgres: PostgresServer, database_factory: DatabaseFactory
) -> None:
    database = database_factory(mortal_postgres)
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY, n int, body text)",
        "ALTER TABLE items ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO items VALUES (1, 0, repeat('old', 2000))",
    )
    source = make_source(database.dsn, database.name, toast="reselect")
    with closing(source.open(None)) as reader:
        read_until(reader, bool)
        with waiting_for_standbys(
            database,
            "UPDATE items SET body = repeat('new', 2000)",
            "UPDATE items SET n = 1",
        ):
            for _ in range(200):
                chunk = reader.read()
                assert chunk is None or not chunk.changes
            assert str(ask(database, "SELECT body FROM items")).startswith("old")
        changes = read_changes(reader, 2)
    assert [str(after(change)["body"])[:3] for change in changes] == ["new", "new"]


def test_rights_are_asked_for_at_the_start_and_told_when_they_go(items: Database) -> None:
    role = f"r_{items.name}"
    run(items, f"CREATE ROLE {role} LOGIN REPLICATION", "CREATE PUBLICATION p FOR TABLE items")
    dsn = psycopg.conninfo.make_conninfo(items.dsn, user=role)
    run(items, f"SELECT pg_create_logical_replication_slot('{role}', 'pgoutput')")
    source = make_source(
        dsn, items.name, toast="reselect", create=False, publication="p", slot=role
    )
    try:
        with pytest.raises(ConfigError) as caught:
            source.open(None)
        assert caught.value.code == "postgres.select_right"
        assert "toast: mark" in caught.value.cure
        assert [error.code for error in source.check()] == ["postgres.select_right"]
        run(items, f"GRANT SELECT ON items TO {role}")
        with capture_logs(), closing(source.open(None)) as reader:
            run(items, f"REVOKE SELECT ON items FROM {role}", "UPDATE items SET n = 1")
            with pytest.raises(FatalError) as later:
                read_changes(reader, 1)
        assert later.value.code == "postgres.select_right"
        assert "toast: mark" in later.value.cure
    finally:
        run(
            items,
            f"SELECT pg_drop_replication_slot('{role}')",
            f"DROP OWNED BY {role}",
            f"DROP ROLE {role}",
        )
