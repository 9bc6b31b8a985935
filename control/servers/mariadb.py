"""A private MariaDB server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from control.servers.binlog_server import BinlogServer, ServerPrograms
from control.servers.errors import ServerMissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETTINGS = {"binlog-format": "ROW", "server-id": "1", "gtid-strict-mode": "ON"}
_FOLDERS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/libexec"


def find_mariadb() -> ServerPrograms:
    """MariaDB's server.

    Looked for in the folder `WAXTAP_MARIADB_BIN`, then on PATH and in the system's folders.

    Raises:
        ServerMissingError: There is none.
    """
    named = os.environ.get("WAXTAP_MARIADB_BIN")
    path = named or f"{os.environ.get('PATH', os.defpath)}:{_FOLDERS}"
    server = shutil.which("mariadbd", path=path)
    if server is None or shutil.which("mariadb-install-db", path=path) is None:
        raise ServerMissingError(
            "server.mariadb_missing",
            "no mariadbd and mariadb-install-db on this machine",
            where="WAXTAP_MARIADB_BIN" if named else "",
            cure="install the package `mariadb-server-core`, or set WAXTAP_MARIADB_BIN",
        )
    answer = subprocess.run([server, "--version"], check=True, capture_output=True, text=True)  # noqa: S603
    version = re.search(r"Ver (\S+?)-MariaDB", answer.stdout)
    return ServerPrograms((server, "--no-defaults"), version[1] if version else "")


class MariadbServer(BinlogServer):
    """A MariaDB server; see `BinlogServer`."""

    name = "MariaDB"
    own_settings = _SETTINGS

    @staticmethod
    def _find() -> ServerPrograms:
        return find_mariadb()

    def _initialisation(self, folder: Path) -> Sequence[str]:
        server = Path(self.programs.server[0])
        path = f"{server.parent}:{server.parent.with_name('bin')}:{_FOLDERS}"
        install = shutil.which("mariadb-install-db", path=path) or "mariadb-install-db"
        return [
            install,
            "--no-defaults",
            f"--datadir={folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ]
