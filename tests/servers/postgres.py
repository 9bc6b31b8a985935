"""Fixtures of PostgreSQL: one server a session, a fresh database a test, servers of one's own."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest
from psycopg import sql

from control.servers.postgres import PostgresServer
from control.servers.postgres_programs import find_programs
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Database:
    """A database that only this test uses.

    Attributes:
        server: The server it lies on, which other tests use as well.
        name: Its name.
        dsn: Its conninfo string.
    """

    server: PostgresServer
    name: str
    dsn: str

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """An autocommit connection; the caller closes it."""
        return psycopg.connect(self.dsn, autocommit=True)


class PostgresFactory(Protocol):
    """Starts a server of the test's own, stopped when the test ends."""

    def __call__(
        self, settings: Mapping[str, str] | None = None, *, password: str | None = None
    ) -> PostgresServer: ...


class DatabaseFactory(Protocol):
    """Makes a further fresh database on the session's server, or on another one."""

    def __call__(self, server: PostgresServer | None = None) -> Database: ...


# Nothing here survives the machine, so nothing need be on its disk; SIGKILL loses nothing.
_SHARED = {"fsync": "off", "max_connections": "200"}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server for the whole session; a test must not stop or change it."""
    programs = obtain("postgres", find_programs, "postgresql")
    with PostgresServer(_SHARED, programs=programs) as server:
        yield server


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[PostgresServer]:
    """A server for the whole session that tests kill and start again: to make one takes longer."""
    programs = obtain("postgres", find_programs, "postgresql")
    with PostgresServer(_SHARED, programs=programs) as server:
        yield server


@pytest.fixture
def postgres_factory() -> Iterator[PostgresFactory]:
    """Servers with settings of one's own, to be killed and restarted at will."""
    programs = obtain("postgres", find_programs, "postgresql")
    with ExitStack() as stack:

        def start(
            settings: Mapping[str, str] | None = None, *, password: str | None = None
        ) -> PostgresServer:
            chosen = {"fsync": "off", **(settings or {})}
            server = PostgresServer(chosen, password=password, programs=programs)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def database_factory(postgres_server: PostgresServer) -> Iterator[DatabaseFactory]:
    """Fresh databases; dropped afterwards with their slots, unless their server is down."""
    made: list[Database] = []

    def create(server: PostgresServer | None = None) -> Database:
        server = server or postgres_server
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made.append(Database(server, name, server.dsn(name)))
        return made[-1]

    yield create
    for database in reversed(made):
        if database.server.running:
            drop(database)


@pytest.fixture
def database(database_factory: DatabaseFactory) -> Database:
    """A fresh database on the session's server."""
    return database_factory()


def drop(database: Database) -> None:
    """Drop a database, after every session and every replication slot on it."""
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        for (slot,) in connection.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = %s", [database.name]
        ).fetchall():
            # A walsender that is still there holds its slot; it lets go while it ends.
            connection.execute(
                """DO $$ BEGIN
                     FOR attempt IN 1..1000 LOOP
                       PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
                         WHERE slot_name = {slot} AND active_pid IS NOT NULL;
                       BEGIN
                         PERFORM pg_drop_replication_slot({slot});
                         RETURN;
                       EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.01);
                       END;
                     END LOOP;
                     RAISE EXCEPTION 'slot % stays in use', {slot};
                   END $$""".replace("{slot}", sql.Literal(slot).as_string(connection)).encode()
            )
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database.name))
        )
