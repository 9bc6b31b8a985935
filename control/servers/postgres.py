"""A private PostgreSQL server with logical decoding on."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import make_conninfo

from control.servers.account import unprivileged
from control.servers.errors import ServerStartError
from control.servers.local import LocalServer
from control.servers.ports import free_port
from control.servers.postgres_programs import find_programs, reachable_programs, server_version
from control.servers.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_PORT_TRIES = 5
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

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        data: Path | None = None,
        *,
        password: str | None = None,
        programs: Path | None = None,
    ) -> None:
        self._account = unprivileged()
        self.programs = reachable_programs(programs or find_programs(), self._account)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._password = password
        self._temporary = data is None
        folder = data or Path(tempfile.mkdtemp(prefix="waxtap-postgres-"))
        process = ServerProcess(
            "PostgreSQL",
            folder,
            stop_signals=_STOP,
            death_signal=signal.SIGQUIT,
            account=self._account,
            environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
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

    def start(self) -> Self:
        """Initialise the data folder when it is new, start, and return once it takes connections.

        Raises:
            ServerStartError: It did not come up; tells the end of its log.
        """
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        for tries_left in reversed(range(_PORT_TRIES)):
            fresh = not self.port
            self.port = self.port or free_port()
            self._write_settings()
            try:
                self._process.start([self.programs / "postgres", "-D", self._data], self._ready)
            except ServerStartError as error:
                lost_race = fresh and "could not bind" in error.message
                if not lost_race or not tries_left:
                    raise
                self.port = 0
                continue
            return self
        raise AssertionError("the last try returns or raises")

    def stop(self) -> None:
        """Shut down fast, insist when clients hold it up, and remove a temporary folder."""
        self._process.stop()
        _remove_shared_memory(self._data / "postmaster.pid")
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, settings: Mapping[str, str] | None = None) -> Self:
        """Shut down and start again on the same port, with further settings if there are any."""
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
    def _data(self) -> Path:
        return self.folder / "data"

    def _initialise(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give(self.folder)
        if self._account and not self._account.can_enter(self.folder):
            raise ServerStartError(
                "server.folder_closed",
                f"the user {self._account.name}, whom PostgreSQL runs as, cannot enter it",
                where=str(self.folder),
                cure="choose a folder below one that everybody may search, such as /tmp",
            )
        # Renamed when whole: a run that was killed halfway leaves no data folder that looks ready.
        scratch = self.folder / f"initdb-{secrets.token_hex(4)}"
        command: list[str | Path] = [self.programs / "initdb", "-D", scratch, "-U", "postgres"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync"]
        if self._password is None:
            command += ["-A", "trust"]
        else:
            secret = self.put_file("password", self._password.encode())
            command += ["-A", "scram-sha-256", f"--pwfile={secret}"]
        result = subprocess.run(  # noqa: S603 - the command is our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.folder,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            extra_groups=[] if self._account else None,
        )
        (self.folder / "password").unlink(missing_ok=True)
        if result.returncode != 0:
            shutil.rmtree(scratch, ignore_errors=True)
            raise ServerStartError(
                "server.initdb_failed", f"initdb says:\n{result.stdout}", where=str(self.folder)
            )
        scratch.rename(self._data)

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
        path = self.folder / "waxtap.conf"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        self._give(path)
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

    def _give(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.uid, self._account.gid)


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
