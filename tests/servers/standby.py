"""PostgreSQL standbys, for tests that promote them or read from them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest

from control.servers.postgres import PostgresServer
from control.servers.postgres_programs import find_programs
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NEW = 17
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_PRIMARY = {"fsync": "off", "hot_standby_feedback": "on"}


class StandbyServer(PostgresServer):
    """A physical standby of another server, made by a base backup of it.

    Args:
        primary: It runs, and has a physical slot of the name `standby`.
        settings: As in `PostgresServer`.
    """

    def __init__(self, primary: PostgresServer, settings: Mapping[str, str] | None = None) -> None:
        self._primary = primary
        follow = {
            "primary_conninfo": primary.dsn(), "primary_slot_name": "standby",
            "hot_standby_feedback": "on", "wal_receiver_status_interval": "100ms",
        }  # fmt: skip
        super().__init__({"fsync": "off", **follow, **(settings or {})}, programs=primary.programs)

    def _prepare(self) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        self._folder.make()
        options = ["-d", self._primary.dsn(), "-c", "fast", "-X", "stream", "--no-sync"]
        self._folder.fill(
            "data",
            lambda folder: [self.programs / "pg_basebackup", "-D", folder, *options],
            _ENVIRONMENT,
        )
        self.put_file("data/standby.signal", b"")
        # The primary's own settings stand behind the last line.
        main = self._data / "postgresql.conf"
        *lines, _include = main.read_text().splitlines(keepends=True)
        main.write_text("".join(lines))

    def _ready(self, pid: int) -> bool:
        """Also once it serves clients that only read."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")


class PairFactory(Protocol):
    """Starts a primary and its standby, stopped when the test ends."""

    def __call__(
        self,
        settings: Mapping[str, str] | None = None,
        standby_settings: Mapping[str, str] | None = None,
    ) -> tuple[PostgresServer, StandbyServer]: ...


@pytest.fixture
def postgres_pair() -> Iterator[PairFactory]:
    """Servers of PostgreSQL 17 or newer: these keep slots over a failover."""
    programs = obtain("postgres", lambda: find_programs(_NEW))
    with ExitStack() as stack:

        def start(
            settings: Mapping[str, str] | None = None,
            standby_settings: Mapping[str, str] | None = None,
        ) -> tuple[PostgresServer, StandbyServer]:
            primary = PostgresServer({**_PRIMARY, **(settings or {})}, programs=programs)
            stack.enter_context(primary)
            with psycopg.connect(primary.dsn(), autocommit=True) as connection:
                connection.execute("SELECT pg_create_physical_replication_slot('standby')")
            standby = StandbyServer(primary, standby_settings)
            return primary, stack.enter_context(standby)

        yield start
