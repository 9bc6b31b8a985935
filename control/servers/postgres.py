"""A private PostgreSQL server with logical decoding on."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING, ClassVar, Self

from psycopg.conninfo import make_conninfo

from control.servers.account import unprivileged
from control.servers.folder import ServerFolder
from control.servers.local import LocalServer
from control.servers.postgres_programs import find_programs, reachable_programs, server_version
from control.servers.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "max_wal_senders": "50",
    "max_replication_slots": "50",
    "max_wal_size": "4GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# A smart or fast shutdown waits for every walsender's client; an immediate one for nobody.
_STOP = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 10.0))
_NAME = "PostgreSQL"
_DATA = "data"
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_IPC_RMID = 0


class PostgresServer(LocalServer):
    """A PostgreSQL server on 127.0.0.1 and on a Unix socket in its own folder.

    Works for root (the server then runs as `postgres` or `nobody`) and for an ordinary user. The
    superuser is `postgres`. A port that was found once stays the same through `restart` and `kill`.

    Args:
        settings: Over ours: `wal_level=logical`, 50 senders and slots, `timezone=UTC`.
        data: The server's folder, kept by `stop` and used again by a later server; None: a
            temporary one that `stop` removes.
        password: Demanded from every client by SCRAM; None: everybody on this machine is trusted.
        programs: The folder of `initdb` and `postgres`; None: `find_programs` looks for it.

    Raises:
        ServerMissingError: PostgreSQL is not on this machine.
    """

    port_taken: ClassVar[str] = "could not bind"

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        data: Path | None = None,
        *,
        password: str | None = None,
        programs: Path | None = None,
    ) -> None:
        account = unprivileged()
        self.programs = reachable_programs(programs or find_programs(), account)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._password = password
        folder = ServerFolder(_NAME, data, account)
        process = ServerProcess(
            _NAME,
            folder.path,
            stop_signals=_STOP,
            death_signal=signal.SIGQUIT,
            account=account,
            environment=_ENVIRONMENT,
        )
        super().__init__(process, folder)

    @property
    def version(self) -> str:
        """The server's version, such as `18.1`."""
        return server_version(self.programs)

    @property
    def socket_folder(self) -> Path:
        """The folder of the Unix socket, for `host=`."""
        return self.folder

    def dsn(self, dbname: str = "postgres", *, user: str = "postgres", socket: bool = False) -> str:
        """The conninfo string of a database: by TCP, or by the Unix socket."""
        return make_conninfo(
            host=str(self.socket_folder) if socket else "127.0.0.1",
            port=self.port,
            dbname=dbname,
            user=user,
            password=self._password,
        )

    def stop(self) -> None:
        """Shut down fast, insist when clients hold it up, and remove a temporary folder."""
        self._process.stop()
        _remove_shared_memory(self._data / "postmaster.pid")
        self._folder.discard()

    def restart(self, settings: Mapping[str, str] | None = None) -> Self:
        """Shut down and start again on the same port, with further settings if there are any."""
        self._settings |= settings or {}
        return super().restart()

    @property
    def _data(self) -> Path:
        return self.folder / _DATA

    def _prepare(self) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        self._folder.make()
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        if self._password is None:
            options += ["-A", "trust"]
        else:
            secret = self.put_file("password", self._password.encode())
            options += ["-A", "scram-sha-256", f"--pwfile={secret}"]
        try:
            self._folder.fill(
                _DATA,
                lambda folder: [self.programs / "initdb", "-D", folder, *options],
                _ENVIRONMENT,
            )
        finally:
            (self.folder / "password").unlink(missing_ok=True)

    def _command(self) -> Sequence[str | Path]:
        self._write_settings()
        return [self.programs / "postgres", "-D", self._data]

    def _write_settings(self) -> None:
        """Put our settings into a file of their own that postgresql.conf ends with."""
        settings = {
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_folder),
            **self._settings,
        }
        lines = [
            f"{key} = '{value.replace(chr(39), chr(39) * 2)}'" for key, value in settings.items()
        ]
        path = self.put_file("waxtap.conf", "".join(f"{line}\n" for line in lines).encode())
        main = self._data / "postgresql.conf"
        include = f"include {_quoted(str(path))}\n"
        if not main.read_text().endswith(include):
            with main.open("a") as file:
                file.write(include)

    def _ready(self, pid: int) -> bool:
        """True once postmaster.pid says so: line 1 is the pid, line 8 the status (miscadmin.h)."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _quoted(value: str) -> str:
    """A string constant of a configuration file: PostgreSQL manual, 20.1.2."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _remove_shared_memory(postmaster_file: Path) -> None:
    """Remove the System V segment that a killed postmaster left: line 7 holds its key and id."""
    try:
        identifier = int(postmaster_file.read_text().splitlines()[6].split()[1])
    except (FileNotFoundError, IndexError, ValueError):
        return
    ctypes.CDLL(None).shmctl(identifier, _IPC_RMID, None)
