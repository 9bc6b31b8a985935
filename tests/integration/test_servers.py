"""The servers that demo, bench and tests start: up, down, killed, and gone with their parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from control.servers.account import Account
from control.servers.errors import ServerMissingError, ServerStartError
from control.servers.nats import NatsServer, find_nats_server
from control.servers.pidfile import ProcessIdentity, descendants
from control.servers.postgres import PostgresServer
from control.servers.postgres_programs import find_programs, reachable_programs
from tests.integration.streams import until
from tests.servers.postgres import drop
from tests.servers.require import obtain

if TYPE_CHECKING:
    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import Database, DatabaseFactory, PostgresFactory

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]


def test_postgres_is_ready_for_logical_decoding(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.dsn()) as connection:
        settings = {
            name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in (
                "wal_level",
                "max_wal_senders",
                "max_replication_slots",
                "listen_addresses",
            )
        }
        version = connection.execute("SHOW server_version").fetchone()
    assert settings == {
        "wal_level": ("logical",),
        "max_wal_senders": ("50",),
        "max_replication_slots": ("50",),
        "listen_addresses": ("127.0.0.1",),
    }
    assert version is not None
    assert str(version[0]).split()[0] == postgres_server.version


def test_committed_rows_survive_a_kill(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory()
    dsn = server.dsn()
    with psycopg.connect(server.dsn(socket=True), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    postmaster = ProcessIdentity.of(server.pid)
    family = descendants(server.pid)
    assert postmaster
    assert family
    server.kill()
    assert not any(process.alive() for process in (postmaster, *family))
    assert not server.running
    server.start()
    assert server.dsn() == dsn
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
    server.restart({"max_wal_senders": "3"})
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SHOW max_wal_senders").fetchone() == ("3",)


def test_postgres_asks_for_the_password(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory(password="it's a \\ secret")
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn(), password="wrong").close()


def test_a_setting_that_postgres_refuses_is_told_with_its_log() -> None:
    programs = obtain("postgres", find_programs, "postgresql")
    server = PostgresServer({"wal_level": "sideways"}, programs=programs)
    try:
        with pytest.raises(ServerStartError, match="sideways"):
            server.start()
        assert not server.running
    finally:
        server.stop()
    assert not server.folder.exists()


def test_a_dropped_database_takes_its_slots_along(
    postgres_server: PostgresServer, database_factory: DatabaseFactory
) -> None:
    database = database_factory()
    slot = f"slot_{database.name}"
    with database.connect() as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    drop(database)
    with psycopg.connect(postgres_server.dsn()) as connection:
        (slots,) = connection.execute(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [slot]
        ).fetchone() or (None,)
        (databases,) = connection.execute(
            "SELECT count(*) FROM pg_database WHERE datname = %s", [database.name]
        ).fetchone() or (None,)
    assert (slots, databases) == (0, 0)
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
        # What the fixture drops after the test has to be there.
        connection.execute(f'CREATE DATABASE "{database.name}"')


def test_each_test_has_a_database_of_its_own(
    database: Database, database_factory: DatabaseFactory
) -> None:
    other = database_factory()
    with database.connect() as first, other.connect() as second:
        first.execute("CREATE TABLE mine ()")
        assert second.execute("SELECT to_regclass('mine')").fetchone() == (None,)


def test_nats_keeps_ports_and_data_over_a_kill(nats_factory: NatsFactory) -> None:
    server = nats_factory(max_payload=2_000_000)
    first = (server.url, server.monitoring_url, server.pid)
    assert (server.folder / "jetstream").is_dir()
    server.kill()
    assert not server.running
    server.start()
    assert (server.url, server.monitoring_url) == first[:2]
    assert server.pid != first[2]
    assert "sync_interval: always" in (server.folder / "nats.conf").read_text()


def test_a_frozen_server_can_be_stopped(nats_factory: NatsFactory) -> None:
    server = nats_factory()
    server.suspend()
    status = Path(f"/proc/{server.pid}/stat")
    until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 9


def test_a_server_outlives_the_thread_that_started_it(nats_factory: NatsFactory) -> None:
    servers: list[NatsServer] = []
    thread = threading.Thread(target=lambda: servers.append(nats_factory()))
    thread.start()
    thread.join()
    identity = ProcessIdentity.of(servers[0].pid)
    nats_factory()  # the kernel had every occasion to deliver the signal
    assert identity
    assert identity.alive()


_PARENT = """
import sys, threading
from control.servers.nats import NatsServer
from control.servers.postgres import PostgresServer
with PostgresServer() as postgres, NatsServer() as nats:
    print(postgres.pid, nats.pid, postgres.folder, nats.folder, flush=True)
    threading.Event().wait()
"""


def test_servers_end_with_a_parent_that_was_killed() -> None:
    obtain("postgres", find_programs, "postgresql")
    obtain("nats", find_nats_server)
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        try:
            postgres, nats, *folders = parent.stdout.readline().split()
            servers = [ProcessIdentity.of(int(pid)) for pid in (postgres, nats)]
            family = [*servers, *descendants(int(postgres))]
            assert all(family)
            assert len(family) > 4
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
    until(lambda: not any(process and process.alive() for process in family))
    for folder in folders:
        shutil.rmtree(folder)


def test_a_leftover_of_a_crashed_run_is_ended_at_the_next_start(tmp_path: Path) -> None:
    obtain("nats", find_nats_server)
    first = NatsServer(data=tmp_path / "nats").start()
    second = NatsServer(data=tmp_path / "nats")
    leftover = ProcessIdentity.of(first.pid)
    assert leftover
    try:
        second.start()
        assert not leftover.alive()
        assert second.running
    finally:
        second.stop()
        first.stop()
    assert (tmp_path / "nats" / "jetstream").is_dir()


def test_a_process_that_only_has_the_same_pid_is_let_alone(tmp_path: Path) -> None:
    obtain("nats", find_nats_server)
    ourselves = ProcessIdentity.of(os.getpid())
    assert ourselves
    (tmp_path / "nats").mkdir()
    impostor = ProcessIdentity(ourselves.pid, ourselves.started + 1, ourselves.boot)
    impostor.write(tmp_path / "nats" / "server.pid")
    with NatsServer(data=tmp_path / "nats") as server:
        assert server.running


def test_programs_in_a_closed_folder_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    programs = closed / "installation" / "bin"
    programs.mkdir(parents=True)
    program = programs / "postgres"
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 99.1 (made up)'\n")
    program.chmod(0o700)
    closed.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stranger = Account("stranger", 54321, 54321)
    copy = reachable_programs(programs, stranger)
    assert copy != programs
    assert (copy / "postgres").read_text() == program.read_text()
    assert (copy / "postgres").stat().st_mode & 0o777 == 0o755
    assert reachable_programs(programs, stranger) == copy
    copy.parents[1].chmod(0o777)
    with pytest.raises(ServerMissingError, match="not ours alone"):
        reachable_programs(programs, stranger)
    assert reachable_programs(programs, None) == programs


@pytest.mark.parametrize("name", ["WAXTAP_POSTGRES_BIN", "WAXTAP_NATS_SERVER"])
def test_a_named_program_that_is_not_there_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "nothing"))
    find = find_programs if "POSTGRES" in name else find_nats_server
    with pytest.raises(ServerMissingError, match=name):
        find()


def test_a_missing_server_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ServerMissingError("server.none", "there is none")

    monkeypatch.setenv("WAXTAP_REQUIRE", "postgres")
    with pytest.raises(pytest.skip.Exception, match="there is none"):
        obtain("nats", missing)
    monkeypatch.setenv("WAXTAP_REQUIRE", "postgres, nats")
    with pytest.raises(pytest.fail.Exception, match="there is none"):
        obtain("nats", missing)
