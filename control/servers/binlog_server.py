"""What a private MySQL and a private MariaDB server have in common."""

from __future__ import annotations

import os
import signal
import socket
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from control.servers.account import unprivileged
from control.servers.folder import ServerFolder
from control.servers.local import LocalServer
from control.servers.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SETTINGS = {
    "bind-address": "127.0.0.1",
    "log-bin": "binlog",
    "binlog-row-metadata": "FULL",
    "character-set-server": "utf8mb4",
    "default-time-zone": "+00:00",
    "innodb-buffer-pool-size": "64M",
    "max-connections": "200",
    "performance-schema": "OFF",
}
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_DATA = "data"
# MySQL and MariaDB greet with a packet whose fifth byte is the protocol's version.
_PROTOCOL = 10


@dataclass(frozen=True, slots=True)
class ServerPrograms:
    """How a server is run.

    Attributes:
        server: The command that starts it, without settings.
        version: What it says of itself.
    """

    server: tuple[str, ...]
    version: str


class BinlogServer(LocalServer):
    """A server with a row-based binary log, on 127.0.0.1 and on a Unix socket in its own folder.

    Works for root (the server then runs as an unprivileged user) and for an ordinary user. The
    account `waxtap` has no password and every right. A port that was found once stays the same.

    Args:
        settings: Over ours: a binary log with full metadata, UTC, utf8mb4, and `own_settings`.
        data: The server's folder, kept by `stop` and used again by a later server; None: a
            temporary one that `stop` removes.
        programs: How it is run; None: it is looked for.
        template: A data folder that was initialised before and is copied, which is faster.

    Attributes:
        name: The kind of server, for messages.
        own_settings: What a server of this kind needs besides.
        programs: How it is run.

    Raises:
        ServerMissingError: The server is not on this machine.
    """

    name: ClassVar[str]
    own_settings: ClassVar[Mapping[str, str]]
    port_taken: ClassVar[str] = "address already in use"

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        data: Path | None = None,
        *,
        programs: ServerPrograms | None = None,
        template: Path | None = None,
    ) -> None:
        account = unprivileged()
        self.programs = programs or self._find()
        self._settings: dict[str, str | None] = {
            **_SETTINGS,
            **self.own_settings,
            **(settings or {}),
        }
        self._template = template
        folder = ServerFolder(self.name, data, account)
        process = ServerProcess(
            self.name,
            folder.path,
            stop_signals=((signal.SIGTERM, 20.0),),
            account=account,
            environment=_ENVIRONMENT,
        )
        super().__init__(process, folder)

    @property
    def version(self) -> str:
        """The server's version, such as `9.7.1`."""
        return self.programs.version

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.folder / "socket"

    def dsn(self, *, user: str = "waxtap", password: str = "", options: str = "") -> str:
        """The DSN of the server, by TCP.

        Args:
            user: Who connects.
            password: Theirs; needs no encoding here if it is made of letters and digits.
            options: Further ones, such as `tls=verify-full`.
        """
        secret = f":{password}" if password else ""
        return f"mysql://{user}{secret}@127.0.0.1:{self.port}/" + (f"?{options}" if options else "")

    def restart(self, settings: Mapping[str, str | None] | None = None) -> Self:
        """Shut down and start again on the same port.

        Args:
            settings: Further ones; None for what is to be switched off.
        """
        self._settings |= settings or {}
        return super().restart()

    @property
    def data(self) -> Path:
        """The server's data folder."""
        return self.folder / _DATA

    @staticmethod
    @abstractmethod
    def _find() -> ServerPrograms:
        """Look for the server on this machine."""

    @abstractmethod
    def _initialisation(self, folder: Path) -> Sequence[str]:
        """The command that makes a data folder."""

    def initialise(self) -> None:
        """Make the data folder.

        Raises:
            ServerStartError: It could not be made.
        """
        self._folder.make()
        if self._template is None:
            self._folder.fill(_DATA, self._initialisation, _ENVIRONMENT)
        else:
            self._folder.copy(_DATA, self._template)
            # a server's identity must be its own
            (self.data / "auto.cnf").unlink(missing_ok=True)

    def _prepare(self) -> None:
        if not self.data.exists():
            self.initialise()

    def _command(self) -> list[str]:
        accounts = self.put_file(
            "accounts.sql",
            b"SET SESSION sql_log_bin = 0;\n"
            b"CREATE USER IF NOT EXISTS 'waxtap'@'%' IDENTIFIED BY '';\n"
            b"GRANT ALL ON *.* TO 'waxtap'@'%' WITH GRANT OPTION;\n",
        )
        settings = {
            **self._settings,
            "port": str(self.port),
            "datadir": str(self.data),
            "socket": str(self.socket),
            "pid-file": str(self.folder / "pid"),
            "tmpdir": str(self.folder),
            "init-file": str(accounts),
        }
        return [
            *self.programs.server,
            *(
                f"--skip-{key}" if value is None else f"--{key}={value}"
                for key, value in settings.items()
            ),
        ]

    def _ready(self, pid: int) -> bool:
        """True once this very server greets clients."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1.0)
                client.connect(str(self.socket))
                greeting = client.recv(5)
        except OSError:
            return False
        return len(greeting) == 5 and greeting[4] == _PROTOCOL
