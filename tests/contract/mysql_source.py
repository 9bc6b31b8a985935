"""The MySQL and the MariaDB source under the source suite."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, ClassVar

import msgspec

from connectors import registry
from control.servers.ports import free_port
from tests.contract.context import source_context
from tests.servers.binlog import connect, purge, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Source
    from control.servers.binlog_server import BinlogServer

_GLOBALS = {"binlog_row_metadata": "FULL", "binlog_row_image": "FULL"}


class MysqlSourceAdapter:
    """A database of its own on a shared server, with the table `items`."""

    LOSSES: ClassVar[tuple[str, ...]] = ("logs purged", "logs reset")
    HOLDS_LOG: ClassVar[bool] = False
    TYPE: ClassVar[str] = "mysql"
    MONITOR_RIGHT: ClassVar[str] = "REPLICATION CLIENT"
    RESET: ClassVar[str] = "RESET BINARY LOGS AND GTIDS"

    def __init__(self, server: BinlogServer) -> None:
        self._server = server
        self._name = f"s{secrets.token_hex(4)}"
        self._database = f"contract_{self._name}"
        run(
            server,
            f"CREATE DATABASE {self._database}",
            f"CREATE TABLE {self._database}.items (id bigint PRIMARY KEY, value longtext)",
        )

    def source(self) -> Source:
        return self._source(self._name, self._server.dsn())

    def unreachable(self) -> Source:
        return self._source(self._name, f"mysql://waxtap:s3cret-word@127.0.0.1:{free_port()}/")

    def misconfigured(self) -> Mapping[str, Callable[[], Source]]:
        return {
            "REPLICATION SLAVE": self._without_right,
            "no-dot": lambda: self._source(self._name, self._server.dsn(), tables=["no-dot"]),
            "binlog_row_metadata = 'FULL'": lambda: self._with("binlog_row_metadata", "MINIMAL"),
            "binlog_row_image = 'FULL'": lambda: self._with("binlog_row_image", "MINIMAL"),
        }

    def lose_history(self, way: str) -> None:
        if way == "logs purged":
            purge(self._server)
        else:
            run(self._server, self.RESET)

    def write(self, ids: Sequence[int]) -> None:
        self._insert(ids)

    def abort(self, ids: Sequence[int]) -> None:
        self._insert(ids, "ROLLBACK")

    def partly(self, kept: Sequence[int], undone: Sequence[int]) -> None:
        with connect(self._server, self._database) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(_insertion(kept))
            cursor.execute("SAVEPOINT here")
            cursor.execute(_insertion(undone))
            cursor.execute("ROLLBACK TO SAVEPOINT here")
            cursor.execute("COMMIT")

    def write_wide(self, ids: Sequence[int], size: int) -> None:
        with connect(self._server, self._database) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            for number in ids:
                text = secrets.token_hex(size // 2)
                cursor.execute("INSERT INTO items VALUES (%s, %s)", (number, text))
            cursor.execute("COMMIT")

    def identify(self, change: Change) -> int:
        assert change.key is not None
        return int(msgspec.json.decode(change.key)["id"])

    def retained(self) -> int:
        raise AssertionError("a binary log is kept by the server's own rules")

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()

    def close(self) -> None:
        if not self._server.running:
            self._server.start()
        self._restore()
        run(
            self._server,
            f"DROP DATABASE {self._database}",
            f"DROP USER IF EXISTS 'plain_{self._name}'@'%'",
        )

    def _source(self, name: str, dsn: str, **settings: object) -> Source:
        spec = registry.source_spec(self.TYPE).model_validate(
            # The suite is about the log: a row of it would come from its table as well.
            {
                "type": self.TYPE,
                "dsn": dsn,
                "tables": [f"{self._database}.*"],
                "snapshot": "never",
                **settings,
            }
        )
        return registry.source(self.TYPE, name, spec, (), source_context())

    def _insert(self, ids: Sequence[int], end: str = "COMMIT") -> None:
        with connect(self._server, self._database) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(_insertion(ids))
            cursor.execute(end)

    def _without_right(self) -> Source:
        user = f"plain_{self._name}"
        run(
            self._server,
            f"CREATE USER '{user}'@'%'",
            f"GRANT {self.MONITOR_RIGHT} ON *.* TO '{user}'@'%'",
        )
        return self._source(self._name, self._server.dsn(user=user))

    def _with(self, name: str, value: str) -> Source:
        self._restore()
        run(self._server, f"SET GLOBAL {name} = '{value}'")
        return self.source()

    def _restore(self) -> None:
        run(self._server, *(f"SET GLOBAL {name} = '{value}'" for name, value in _GLOBALS.items()))


class MariadbSourceAdapter(MysqlSourceAdapter):
    """The same on MariaDB."""

    TYPE: ClassVar[str] = "mariadb"
    MONITOR_RIGHT: ClassVar[str] = "BINLOG MONITOR"
    RESET: ClassVar[str] = "RESET MASTER"


def _insertion(ids: Sequence[int]) -> str:
    return "INSERT INTO items VALUES " + ",".join(f"({number}, 'v{number}')" for number in ids)
