"""What a private MySQL and a private MariaDB server have in common."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from control.servers.account import unprivileged
from control.servers.errors import ServerStartError
from control.servers.local import LocalServer
from control.servers.ports import free_port
from control.servers.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_PORT_TRIES = 5
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
        name: For messages.
        programs: How it is run.
        settings: Over ours: a binary log with full metadata, UTC, utf8mb4.
        data: The server's folder, kept by `stop` and used again by a later server; None: a
            temporary one that `stop` removes.
        template: A data folder that was initialised before and is copied, which is faster.
    """

    def __init__(
        self,
        name: str,
        programs: ServerPrograms,
        settings: Mapping[str, str],
        data: Path | None,
        template: Path | None,
    ) -> None:
        self._account = unprivileged()
        self.programs = programs
        self._settings: dict[str, str | None] = {**_SETTINGS, **settings}
        self._template = template
        self._temporary = data is None
        folder = data or Path(tempfile.mkdtemp(prefix=f"waxtap-{name.lower()}-"))
        process = ServerProcess(
            name,
            folder,
            stop_signals=((signal.SIGTERM, 20.0),),
            account=self._account,
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

    def start(self) -> Self:
        """Initialise the data folder when it is new, start, and return once it takes connections.

        Raises:
            ServerStartError: It did not come up; tells the end of its log.
        """
        if not self.data.exists():
            self.initialise()
        for tries_left in reversed(range(_PORT_TRIES)):
            fresh = not self.port
            self.port = self.port or free_port()
            try:
                self._process.start(self._command(), self._ready)
            except ServerStartError as error:
                lost_race = fresh and "ddress already in use" in error.message
                if not lost_race or not tries_left:
                    raise
                self.port = 0
                continue
            return self
        raise AssertionError("the last try returns or raises")

    def stop(self) -> None:
        """Shut down, and remove a temporary folder."""
        self._process.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, settings: Mapping[str, str | None] | None = None) -> Self:
        """Shut down and start again on the same port.

        Args:
            settings: Further ones; None for what is to be switched off.
        """
        self._settings |= settings or {}
        self._process.stop()
        return self.start()

    def put_file(self, name: str, content: bytes) -> Path:
        """Write a file that only the server's user may read (a TLS key, say) into its folder."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        self._give(path)
        return path

    @property
    def data(self) -> Path:
        """The server's data folder."""
        return self.folder / "data"

    @abstractmethod
    def _initialisation(self, folder: Path) -> Sequence[str]:
        """The command that makes a data folder."""

    def initialise(self) -> None:
        """Make the data folder.

        Raises:
            ServerStartError: It could not be made.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give(self.folder)
        if self._template is not None:
            shutil.copytree(self._template, self.data)
            # a server's identity must be its own
            (self.data / "auto.cnf").unlink(missing_ok=True)
            for path in (self.data, *self.data.rglob("*")):
                self._give(path)
            return
        # Renamed when whole: a run that was killed halfway leaves none that looks ready.
        scratch = self.folder / "initialising"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        self._give(scratch)
        result = subprocess.run(  # noqa: S603 - the command is our own
            self._initialisation(scratch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.folder,
            env=_ENVIRONMENT,
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            extra_groups=[] if self._account else None,
        )
        if result.returncode != 0:
            shutil.rmtree(scratch, ignore_errors=True)
            raise ServerStartError(
                "server.initialisation_failed",
                f"{self._process.name} says:\n{result.stdout[-4000:]}",
                where=str(self.folder),
            )
        scratch.rename(self.data)

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

    def _ready(self, _pid: int) -> bool:
        """True once this very server greets clients."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1.0)
                client.connect(str(self.socket))
                greeting = client.recv(5)
        except OSError:
            return False
        return len(greeting) == 5 and greeting[4] == _PROTOCOL

    def _give(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.uid, self._account.gid)
