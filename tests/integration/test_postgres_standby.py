"""A source that reads from a standby."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from connectors.errors import ConfigError
from tests.integration.postgres_capture import (
    after,
    envelope,
    ids,
    make_source,
    read_changes,
    read_until,
)
from tests.integration.postgres_snapshots import done

if TYPE_CHECKING:
    from control.servers.postgres import PostgresServer
    from tests.servers.standby import PairFactory

pytestmark = pytest.mark.servers
_ROWS = 40_000


def _run(server: PostgresServer, *statements: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _write(server: PostgresServer, stop: threading.Event) -> None:
    """Change rows all over the table, in transactions that overlap."""
    with psycopg.connect(server.dsn()) as one, psycopg.connect(server.dsn()) as other:
        turn = 0
        while not stop.wait(0.001):
            turn += 1
            one.execute("UPDATE items SET n = n + 1 WHERE id = %s", [turn * 7919 % _ROWS + 1])
            other.execute("UPDATE items SET n = n + 1 WHERE id = %s", [turn * 7907 % 97 + _ROWS])
            one.commit()
            other.execute("DELETE FROM items WHERE id = %s", [turn * 31 % _ROWS + 1])
            other.commit()


def test_snapshot_and_stream_of_a_standby_make_the_primarys_tables(
    postgres_pair: PairFactory,
) -> None:
    primary, standby = postgres_pair()
    _run(
        primary,
        "CREATE TABLE items (id int PRIMARY KEY, n int, body text)",
        "ALTER TABLE items ALTER body SET STORAGE EXTERNAL",
        f"INSERT INTO items SELECT i, 0, 'x' FROM generate_series(1, {_ROWS + 97}) i",
    )
    with pytest.raises(ConfigError) as caught:
        make_source(standby.dsn(), "shop").open(None)
    assert caught.value.code == "postgres.standby"
    assert "primary_dsn" in caught.value.cure
    source = make_source(
        standby.dsn(),
        "shop",
        primary_dsn=primary.dsn(),
        snapshot="initial",
        toast="reselect",
        heartbeat={"interval": "1s"},
        max_slot_lag="1GiB",
    )
    assert source.check() == []
    stop = threading.Event()
    writer = threading.Thread(target=_write, args=[primary, stop])
    rows: dict[str, dict[str, object]] = {}
    with closing(source.open(None)) as reader:
        writer.start()
        try:
            chunks = read_until(reader, done)
        finally:
            stop.set()
            writer.join()
        _run(primary, "INSERT INTO items VALUES (0, 0, repeat('y', 5000))")
        _run(primary, "UPDATE items SET n = 1 WHERE id = 0")
        chunks += read_until(
            reader,
            lambda seen: bool(seen and seen[-1].changes and after(seen[-1].changes[-1])["n"] == 1
                              and after(seen[-1].changes[-1])["id"] == 0),
        )  # fmt: skip
        health = source.guard()
        assert health is not None
        assert not health.endangered
        observation = source.observe(chunks[-1].checkpoint)
        assert observation.slot_active
    for chunk in chunks:
        for change in chunk.changes:
            key = change.key or ""
            if change.op == "d":
                rows.pop(key, None)
            else:
                assert not change.unavailable
                rows[key] = after(change)
    with psycopg.connect(primary.dsn()) as connection:
        found = connection.execute("SELECT id, n, body FROM items").fetchall()
    assert {row["id"]: (row["n"], row["body"]) for row in rows.values()} == {
        id_: (n, body) for id_, n, body in found
    }
    assert any(change.op == "d" for chunk in chunks for change in chunk.changes)
    # The slot stands on the standby, and goes on once that is promoted.
    primary.kill()
    _run(standby, "SELECT pg_promote()", "INSERT INTO items VALUES (-1, 0, '')")
    alone = make_source(standby.dsn(), "shop", snapshot="initial")
    with closing(alone.open(chunks[-1].checkpoint)) as reader:
        (change,) = read_changes(reader, 1)
        assert ids([change]) == [-1]
        assert envelope(change)["op"] == "c"
    assert alone.drop() == ["slot waxtap_shop", "publication waxtap_shop"]
