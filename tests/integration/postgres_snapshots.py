"""What the tests of PostgreSQL snapshots share."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psycopg

from tests.integration.postgres_capture import make_source, read_until
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk
    from tests.servers.postgres import Database


def done(chunks: list[Chunk]) -> bool:
    return bool(chunks) and '"done":true' in chunks[-1].checkpoint.state["snapshot"]


def take(database: Database, name: str = "shop", **settings: object) -> list[Change]:
    """A whole snapshot."""
    source = make_source(
        database.dsn,
        name,
        accept=(),
        checkpoint_interval=0.1,
        context=None,
        snapshot="initial",
        **settings,
    )
    with closing(source.open(None)) as reader:
        return [change for chunk in read_until(reader, done) for change in chunk.changes]


def run(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def ask(database: Database, query: str) -> object:
    with database.connect() as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


@contextmanager
def waiting_for_standbys(database: Database, *statements: str) -> Iterator[None]:
    """Meanwhile, what one transaction did is in the log and visible to nobody."""

    def write() -> None:
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = on")
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement.encode())

    setting = "ALTER SYSTEM SET synchronous_standby_names = "
    run(database, f"{setting}'nobody'", "SELECT pg_reload_conf()")
    until(lambda: ask(database, "SHOW synchronous_standby_names") == "nobody")
    writer = threading.Thread(target=write)
    writer.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    until(lambda: ask(database, waits) == 1)
    try:
        yield
    finally:
        run(database, f"{setting}''", "SELECT pg_reload_conf()")
        writer.join()
