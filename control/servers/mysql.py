"""A private MySQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from control.servers.binlog_server import BinlogServer, ServerPrograms
from control.servers.mysql_programs import find_mysql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SETTINGS = {
    "server-id": "1",
    "gtid-mode": "ON",
    "enforce-gtid-consistency": "ON",
    "mysqlx": "OFF",
    "secure-file-priv": "",
}


class MysqlServer(BinlogServer):
    """A MySQL server; see `BinlogServer`.

    Args:
        settings: Over ours, which besides say `gtid-mode=ON`.
        data: As in `BinlogServer`.
        programs: How it is run; None: `find_mysql` looks for it.
        template: As in `BinlogServer`.

    Raises:
        ServerMissingError: MySQL is not on this machine.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        data: Path | None = None,
        *,
        programs: ServerPrograms | None = None,
        template: Path | None = None,
    ) -> None:
        chosen = {**_SETTINGS, **(settings or {})}
        super().__init__("MySQL", programs or find_mysql(), chosen, data, template)

    def _initialisation(self, folder: Path) -> Sequence[str]:
        return [*self.programs.server, "--initialize-insecure", f"--datadir={folder}"]
