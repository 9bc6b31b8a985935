"""A private MySQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from control.servers.binlog_server import BinlogServer
from control.servers.mysql_programs import find_mysql

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from control.servers.binlog_server import ServerPrograms

_SETTINGS = {
    "server-id": "1",
    "gtid-mode": "ON",
    "enforce-gtid-consistency": "ON",
    "mysqlx": "OFF",
    "secure-file-priv": "",
}


class MysqlServer(BinlogServer):
    """A MySQL server; see `BinlogServer`."""

    name = "MySQL"
    own_settings = _SETTINGS

    @staticmethod
    def _find() -> ServerPrograms:
        return find_mysql()

    def _initialisation(self, folder: Path) -> Sequence[str]:
        return [*self.programs.server, "--initialize-insecure", f"--datadir={folder}"]
