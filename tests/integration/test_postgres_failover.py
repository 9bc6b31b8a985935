"""A standby that is promoted, and a source that goes on there."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from connectors.errors import ConfigError, RetryableError
from tests.integration.postgres_capture import ids, make_source, read_until

if TYPE_CHECKING:
    from connectors.contracts.source import Chunk
    from control.servers.postgres import PostgresServer
    from tests.servers.standby import PairFactory

pytestmark = pytest.mark.servers


def _run(server: PostgresServer, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def _dsn(*servers: PostgresServer, **more: str) -> str:
    return make_conninfo(
        host=",".join("127.0.0.1" for _ in servers),
        port=",".join(str(server.port) for server in servers),
        dbname="postgres",
        user="postgres",
        **more,
    )


def _ids(chunks: list[Chunk]) -> list[object]:
    return ids([change for chunk in chunks for change in chunk.changes])


def test_a_promoted_standby_is_read_on_from_the_copied_slot(postgres_pair: PairFactory) -> None:
    primary, standby = postgres_pair(
        {"synchronized_standby_slots": "standby"}, {"sync_replication_slots": "on"}
    )
    _run(primary, "CREATE TABLE items (id int PRIMARY KEY)")
    # In any order, since nothing can be written to a standby.
    dsn = _dsn(standby, primary, target_session_attrs="read-write")
    source = make_source(dsn, "shop")
    reader = source.open(None)
    try:
        (begun,) = read_until(reader, bool)

        def copied(chunks: list[Chunk]) -> bool:
            for chunk in chunks[-1:]:
                reader.confirm(chunk.checkpoint)
            _run(primary, f"INSERT INTO items VALUES ({written[-1] + 1})", "CHECKPOINT")
            written.append(written[-1] + 1)
            return _run(
                standby,
                "SELECT synced AND NOT temporary AND invalidation_reason IS NULL"
                " FROM pg_replication_slots WHERE slot_name = 'waxtap_shop'",
            ) == [(True,)]

        written = [0]
        chunks = [begun, *read_until(reader, copied)]
        # A copy cannot be read, and is no loss: the server may be promoted any moment.
        there = make_source(_dsn(standby), "shop")
        with pytest.raises(RetryableError) as caught:
            there.open(chunks[-1].checkpoint)
        assert caught.value.code == "postgres.standby"
        with pytest.raises(ConfigError) as refused:
            there.open(None)
        assert refused.value.code == "postgres.standby"
        chunks += read_until(reader, lambda seen: _ids(chunks + seen) == written[1:])
        # What was given out is on the standby: that is what synchronized_standby_slots is for.
        stored = chunks[-1].checkpoint
        primary.kill()
        _run(standby, "SELECT pg_promote()", "INSERT INTO items VALUES (1000)")
        goal = [*written[1:], 1000]
        with capture_logs() as logs:
            chunks += read_until(reader, lambda seen: len(_ids(chunks + seen)) >= len(goal))
        assert _ids(chunks) == goal
        assert [line["event"] for line in logs if line["log_level"] != "debug"] == [
            "postgres connection lost",
            "postgres connection back",
        ]
    finally:
        reader.close()
    # Another process as well, behind what was stored when the primary died.
    with closing(source.open(stored)) as again:
        assert _ids(read_until(again, lambda seen: bool(_ids(seen)))) == [1000]
    positions = [change.position for chunk in chunks for change in chunk.changes]
    assert positions == sorted(set(positions))


def test_a_slot_is_marked_and_what_a_failover_lacks_is_told(postgres_pair: PairFactory) -> None:
    primary, _standby = postgres_pair()
    _run(primary, "CREATE TABLE items (id int PRIMARY KEY)")

    def marked(*, failover: bool) -> tuple[bool, list[str]]:
        with capture_logs() as logs:
            make_source(primary.dsn(), "shop", failover=failover).open(None).close()
        told = [str(line["missing"]) for line in logs if "missing" in line]
        found = _run(primary, "SELECT failover FROM pg_replication_slots WHERE plugin <> ''")
        return found == [(True,)], told

    assert marked(failover=False) == (False, [])
    marked_now, told = marked(failover=True)
    assert marked_now
    assert "sync_replication_slots = on" in told[0]
    assert "synchronized_standby_slots" in told[0]
    assert marked(failover=False) == (False, [])
