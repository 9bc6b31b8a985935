"""The PostgreSQL source mends its connection by itself, and nothing is missed or repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from structlog.testing import capture_logs

from connectors.errors import GapError
from tests.integration.postgres_capture import ids, make_source, read_changes, read_until
from tests.integration.streams import until
from tests.integration.tcp_relay import TcpRelay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import Database, DatabaseFactory, PostgresFactory

    Connection = psycopg.Connection[tuple[object, ...]]

pytestmark = pytest.mark.servers


@pytest.fixture
def server(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, value text)")
        yield connection


def holder(connection: Connection, database: Database) -> int:
    """The pid that reads from the source's slot; 0: none."""
    row = connection.execute(
        "SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = %s",
        [f"waxtap_{database.name}"],
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


@pytest.mark.parametrize("way", ["restart", "kill"])
def test_a_server_that_restarts_in_mid_stream(
    postgres_factory: PostgresFactory, database_factory: DatabaseFactory, way: str
) -> None:
    server = postgres_factory()
    database = database_factory(server)
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, value text)")
        reader = make_source(database.dsn, database.name).open(None)
        connection.execute("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 20000) i")
    with closing(reader), capture_logs() as logs:
        seen = ids(read_changes(reader, 3000))
        if way == "kill":
            server.kill()
            repeats = read_until(reader, lambda chunks: any(not c.changes for c in chunks))
            seen += ids([change for chunk in repeats for change in chunk.changes])
            server.start()
        else:
            # Nothing is confirmed, and what is in flight is not read: it must not be held up.
            server.restart()
        with closing(database.connect()) as connection:
            connection.execute("INSERT INTO items VALUES (20001)")
        seen += ids(read_changes(reader, 20001 - len(seen)))
    assert seen == list(range(1, 20002))
    assert [log["event"] for log in logs] == [
        "postgres connection lost",
        "postgres connection back",
    ]


def test_a_shutdown_completes_when_everything_is_confirmed(
    postgres_factory: PostgresFactory, database_factory: DatabaseFactory
) -> None:
    server = postgres_factory()
    database = database_factory(server)
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, value text)")
    with closing(make_source(database.dsn, database.name).open(None)) as reader:
        with closing(database.connect()) as connection:
            connection.execute("INSERT INTO items VALUES (1)")
        pid = server.pid
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + 4
        while server.running:
            assert time.monotonic() < deadline
            if (chunk := reader.read()) is not None:
                reader.confirm(chunk.checkpoint)


def test_a_shutdown_is_not_held_up_when_nothing_can_be_confirmed(
    postgres_factory: PostgresFactory, database_factory: DatabaseFactory
) -> None:
    server = postgres_factory()
    database = database_factory(server)
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, value text)")
    with closing(make_source(database.dsn, database.name).open(None)) as reader:
        with closing(database.connect()) as connection:
            connection.execute("INSERT INTO items VALUES (1)")
        os.kill(server.pid, signal.SIGINT)
        deadline = time.monotonic() + 30
        while server.running:
            assert time.monotonic() < deadline
            reader.read()


@pytest.mark.parametrize("server_notices", [True, False])
def test_a_cut_connection(database: Database, server: Connection, server_notices: bool) -> None:
    with TcpRelay(database.server.port) as relay:
        dsn = f"{database.dsn} port={relay.port}"
        with closing(make_source(dsn, database.name).open(None)) as reader:
            server.execute("INSERT INTO items SELECT generate_series(1, 5000)")
            seen = ids(read_changes(reader, 1000))
            first = holder(server, database)
            relay.cut(server_notices=server_notices)
            server.execute("INSERT INTO items VALUES (5001)")
            seen += ids(read_changes(reader, 5001 - len(seen)))
            assert seen == list(range(1, 5002))
            assert holder(server, database) not in (0, first)


def test_a_terminated_session_is_opened_again(database: Database, server: Connection) -> None:
    with closing(make_source(database.dsn, database.name).open(None)) as reader:
        for number in range(1, 4):
            server.execute("INSERT INTO items VALUES (%s)", [number])
            assert ids(read_changes(reader, 1)) == [number]
            server.execute("SELECT pg_terminate_backend(%s)", [holder(server, database)])


def test_a_stalled_worker_keeps_its_session(database: Database, server: Connection) -> None:
    dsn = f"{database.dsn} options='-c wal_sender_timeout=1s'"
    with closing(make_source(dsn, database.name).open(None)) as reader:
        pid = holder(server, database)
        # More than the socket's buffers hold, so that the server is stuck in sending as well.
        server.execute(
            "INSERT INTO items SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i"
        )
        time.sleep(2.5)  # the silence itself is what is tested
        assert holder(server, database) == pid
        assert ids(read_changes(reader, 50000)) == list(range(1, 50001))
        assert holder(server, database) == pid


def test_a_process_that_was_stopped_longer_than_the_server_waits(
    database: Database, server: Connection
) -> None:
    dsn = f"{database.dsn} options='-c wal_sender_timeout=500ms'"
    script = Path(__file__).with_name("print_ids.py")
    with subprocess.Popen(
        [sys.executable, script, database.name, "3000"],
        env={"DSN": dsn, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            server.execute("INSERT INTO items SELECT generate_series(1, 1000)")
            # Log lines stand between them.
            numbers = (int(line) for line in process.stdout if line.strip().isdigit())
            seen = list(islice(numbers, 1000))
            process.send_signal(signal.SIGSTOP)
            server.execute("INSERT INTO items SELECT generate_series(1001, 2000)")
            until(lambda: holder(server, database) == 0)
            server.execute("INSERT INTO items SELECT generate_series(2001, 3000)")
            process.send_signal(signal.SIGCONT)
            seen += islice(numbers, 2000)
            assert seen == list(range(1, 3001))
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_slot_that_vanishes_meanwhile_is_a_gap(database: Database, server: Connection) -> None:
    with closing(make_source(database.dsn, database.name).open(None)) as reader:
        read_until(reader, lambda chunks: len(chunks) >= 1)
        server.execute("SELECT pg_terminate_backend(%s)", [holder(server, database)])
        # Not read meanwhile, so it does not reconnect either.
        until(lambda: holder(server, database) == 0)
        server.execute("SELECT pg_drop_replication_slot(%s)", [f"waxtap_{database.name}"])
        with pytest.raises(GapError) as caught:
            read_until(reader, lambda _: False)
        assert caught.value.code == "postgres.slot_missing"


def test_closing_while_reconnecting(
    postgres_factory: PostgresFactory, database_factory: DatabaseFactory
) -> None:
    server = postgres_factory()
    database = database_factory(server)
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, value text)")
    reader = make_source(database.dsn, database.name).open(None)
    server.kill()
    read_until(reader, lambda chunks: len(chunks) > 2)
    began = time.monotonic()
    reader.close()
    reader.close()
    assert time.monotonic() - began < 3
