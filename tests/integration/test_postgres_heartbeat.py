"""The slot of a database in which nothing happens, on a server that is busy."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from structlog.testing import capture_logs

from connectors.errors import FatalError
from connectors.postgres.health.heartbeat import Heartbeat, beat
from connectors.postgres.server import connect
from connectors.postgres.setup.settings import resolve
from connectors.postgres.spec import SourceSpec
from tests.integration.postgres_capture import ids, make_source, read_changes, read_until
from tests.integration.postgres_snapshots import run
from tests.integration.streams import until

if TYPE_CHECKING:
    from connectors.contracts.source import Chunk
    from connectors.postgres.setup.settings import Settings
    from tests.servers.postgres import Database, DatabaseFactory

pytestmark = pytest.mark.servers
_MIB = 1024 * 1024


def _settings(database: Database, sql: str = "") -> Settings:
    spec = SourceSpec.model_validate(
        {"type": "postgres", "dsn": database.dsn, "heartbeat": {"interval": "1s", "sql": sql}}
    )
    return resolve(database.name, spec)


@pytest.mark.parametrize("heartbeat", [None, {"interval": "1s"}])
def test_an_idle_database_holds_back_nothing_of_what_another_one_writes(
    database: Database, database_factory: DatabaseFactory, heartbeat: object
) -> None:
    busy = database_factory()
    run(database, "CREATE TABLE items (id int PRIMARY KEY)")
    run(busy, "CREATE TABLE noise (id int, text text)")
    source = make_source(database.dsn, database.name, heartbeat=heartbeat)

    def retained() -> int:
        health = source.guard()
        assert health is not None
        return health.retained

    with closing(source.open(None)) as reader:
        run(
            busy,
            "INSERT INTO noise SELECT i, repeat('x', 1000) FROM generate_series(1, 60000) i",
        )
        assert retained() > 50 * _MIB

        def confirmed(chunks: list[Chunk]) -> bool:
            if chunks:
                reader.confirm(chunks[-1].checkpoint)
            # A slot moves on at records that the server writes every 15 s, or at a checkpoint.
            run(busy, "CHECKPOINT")
            return retained() < 5 * _MIB

        chunks = read_until(reader, confirmed)
        assert not any(chunk.changes for chunk in chunks)


def test_heartbeats_are_no_changes_and_do_what_they_are_told(database: Database) -> None:
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY)",
        "CREATE TABLE beats (id int PRIMARY KEY, seen timestamptz)",
        "INSERT INTO beats VALUES (1, NULL)",
    )
    settings = _settings(database, "UPDATE public.beats SET seen = now()")
    source = make_source(database.dsn, database.name, tables=["public.items"])
    with closing(source.open(None)) as reader, connect(database.dsn, database.name) as connection:
        for number in range(3):
            beat(connection, settings)
            run(database, f"INSERT INTO items VALUES ({number})")
        # Also amid a transaction, where the changes' numbers go on as if it were not there.
        with psycopg.connect(database.dsn) as mixed:
            mixed.execute("INSERT INTO items VALUES (3)")
            mixed.execute("SELECT pg_logical_emit_message(true, 'waxtap.heartbeat', '')")
            mixed.execute("INSERT INTO items VALUES (4)")
        changes = read_changes(reader, 5)
    assert ids(changes) == [0, 1, 2, 3, 4]
    assert [change.position[-8:] for change in changes[3:]] == ["00000000", "00000001"]
    with closing(database.connect()) as connection_:
        ((seen,),) = connection_.execute("SELECT seen FROM beats").fetchall()
        assert seen is not None


def test_a_heartbeat_that_is_refused_is_told_once_and_goes_on(database: Database) -> None:
    settings = _settings(database, "UPDATE nowhere SET x = 1")
    with connect(database.dsn, "shop") as connection:
        with pytest.raises(FatalError) as caught:
            beat(connection, settings)
        assert caught.value.code == "postgres.heartbeat_refused"
        assert caught.value.where == f"sources.{database.name}.heartbeat"

    def refused() -> int:
        with closing(database.connect()) as connection:
            ((count,),) = connection.execute(
                "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            ).fetchall()
            return int(str(count))

    with capture_logs() as logs:
        heartbeat = Heartbeat(settings, 0.01)
        try:
            until(lambda: refused() > 3)
        finally:
            heartbeat.stop()
    assert [line["event"] for line in logs] == ["the heartbeat is refused"]
