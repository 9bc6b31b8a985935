"""Fixtures of MariaDB: one server a session, and servers of one's own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from control.servers.mariadb import MariadbServer, find_mariadb
from tests.servers.binlog import FAST
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from control.servers.binlog_server import ServerPrograms
    from tests.servers.binlog import BinlogFactory


@pytest.fixture(scope="session")
def mariadb_programs() -> ServerPrograms:
    return obtain("mariadb", find_mariadb, "mariadb-server-core")


@pytest.fixture(scope="session")
def mariadb_template(mariadb_programs: ServerPrograms) -> Iterator[Path]:
    """A data folder that servers copy, because making one takes seconds."""
    server = MariadbServer(programs=mariadb_programs)
    try:
        server.initialise()
        yield server.data
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mariadb_server(
    mariadb_programs: ServerPrograms, mariadb_template: Path
) -> Iterator[MariadbServer]:
    """A running server for the whole session; a test must not stop or change it."""
    with MariadbServer(FAST, programs=mariadb_programs, template=mariadb_template) as server:
        yield server


@pytest.fixture
def mariadb_factory(
    mariadb_programs: ServerPrograms, mariadb_template: Path
) -> Iterator[BinlogFactory]:
    """Servers with settings of one's own, to be killed and restarted at will."""
    with ExitStack() as stack:

        def start(settings: Mapping[str, str] | None = None) -> MariadbServer:
            chosen = {**FAST, **(settings or {})}
            server = MariadbServer(chosen, programs=mariadb_programs, template=mariadb_template)
            return stack.enter_context(server)

        yield start
