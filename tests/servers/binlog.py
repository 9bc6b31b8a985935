"""What the fixtures of MySQL and MariaDB share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pymysql
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

    from control.servers.binlog_server import BinlogServer

# Nothing here survives the machine, so nothing need be on its disk; SIGKILL loses nothing.
FAST = {"innodb-flush-log-at-trx-commit": "2", "sync-binlog": "0", "skip-name-resolve": "ON"}
_PATIENCE = 60.0


class BinlogFactory(Protocol):
    """Starts a server of the test's own, stopped when the test ends."""

    def __call__(self, settings: Mapping[str, str] | None = None) -> BinlogServer: ...


def connect(server: BinlogServer, database: str | None = None) -> Connection[Cursor]:
    """An autocommit connection with every right; the caller closes it."""
    return pymysql.connect(
        unix_socket=str(server.socket),
        user="waxtap",
        database=database,
        autocommit=True,
        charset="utf8mb4",
    )


def run(server: BinlogServer, *statements: str, database: str | None = None) -> None:
    """Run statements in one session, each committed by itself."""
    with connect(server, database) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows(
    server: BinlogServer, query: str, values: Sequence[object] = (), database: str | None = None
) -> list[tuple[object, ...]]:
    """The rows of a query."""
    with connect(server, database) as connection, connection.cursor() as cursor:
        cursor.execute(query, tuple(values) or None)
        return list(cursor.fetchall())


def purge(server: BinlogServer) -> None:
    """Remove every log file but a fresh one; the server keeps those that are read or needed."""
    run(server, "FLUSH BINARY LOGS")
    *_, (last, *_) = rows(server, "SHOW BINARY LOGS")
    deadline = time.monotonic() + _PATIENCE
    while rows(server, "SHOW BINARY LOGS")[0][0] != last:
        assert time.monotonic() < deadline, "the server does not purge its log"
        run(server, f"PURGE BINARY LOGS TO '{last}'")
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two kinds of server.

    Attributes:
        type: Of sources that read it: `mysql` or `mariadb`.
        server: The session's server; a test must not stop or change it.
        factory: Starts servers of one's own.
    """

    type: str
    server: BinlogServer
    factory: BinlogFactory = field(repr=False)

    @property
    def mariadb(self) -> bool:
        return self.type == "mariadb"


@pytest.fixture(params=["mysql", "mariadb"])
def binlog_kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of server in turn."""
    type_ = str(request.param)
    return Kind(
        type_,
        request.getfixturevalue(f"{type_}_server"),
        request.getfixturevalue(f"{type_}_factory"),
    )
