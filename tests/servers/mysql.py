"""Fixtures of MySQL: one server a session, and servers of one's own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from control.servers.mysql import MysqlServer
from control.servers.mysql_programs import find_mysql, install_mysql
from tests.servers.binlog import FAST
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from control.servers.binlog_server import ServerPrograms
    from tests.servers.binlog import BinlogFactory


@pytest.fixture(scope="session")
def mysql_programs() -> ServerPrograms:
    return obtain("mysql", find_mysql, install=install_mysql)


@pytest.fixture(scope="session")
def mysql_template(mysql_programs: ServerPrograms) -> Iterator[Path]:
    """A data folder that servers copy, because making one takes seconds."""
    server = MysqlServer(programs=mysql_programs)
    try:
        server.initialise()
        yield server.data
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mysql_server(mysql_programs: ServerPrograms, mysql_template: Path) -> Iterator[MysqlServer]:
    """A running server for the whole session; a test must not stop or change it."""
    with MysqlServer(FAST, programs=mysql_programs, template=mysql_template) as server:
        yield server


@pytest.fixture
def mysql_factory(mysql_programs: ServerPrograms, mysql_template: Path) -> Iterator[BinlogFactory]:
    """Servers with settings of one's own, to be killed and restarted at will."""
    with ExitStack() as stack:

        def start(settings: Mapping[str, str] | None = None) -> MysqlServer:
            chosen = {**FAST, **(settings or {})}
            server = MysqlServer(chosen, programs=mysql_programs, template=mysql_template)
            return stack.enter_context(server)

        yield start
