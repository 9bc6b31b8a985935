"""A NATS server that a control service runs for itself: `--embedded`.

It ends with the service, also when that is killed, and loses nothing: JetStream syncs every write.
Flows wait meanwhile and go on when it is back, at the same port. When it ends by itself, it is
started again.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Self

import structlog

from control.servers.errors import ServerStartError
from control.servers.nats import NatsServer
from control.servers.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()

_LOOK_EVERY = 0.2
_PAUSE = 5.0


class EmbeddedNats:
    """NATS inside of a state folder.

    Args:
        state: The service's state folder.
        port: Where it listens on 127.0.0.1; 0: at a free port, the same one from then on.

    Raises:
        ServerMissingError: There is no nats-server on this machine.
    """

    def __init__(self, state: Path, port: int = 0) -> None:
        self._ports = state / "nats-ports.json"
        self._server = NatsServer(state / "nats")
        known = json.loads(self._ports.read_text()) if self._ports.exists() else {}
        self._server.port = port or known.get("port", 0)
        self._server.monitoring_port = known.get("monitoring_port", 0)
        if self._server.port and not self._server.monitoring_port:
            self._server.monitoring_port = free_port()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="waxtap-nats-keeper", daemon=True)

    @property
    def settings(self) -> dict[str, object]:
        """The section `nats` for whoever uses it."""
        return {"url": self._server.url, "monitor": self._server.monitoring_url}

    def start(self) -> Self:
        """Start it, and return once it answers; one that is left over from before is ended.

        Raises:
            ServerStartError: It did not come up.
        """
        self._server.start()
        fresh = self._ports.with_name("nats-ports.json.new")
        ports = {"port": self._server.port, "monitoring_port": self._server.monitoring_port}
        fresh.write_text(json.dumps(ports))
        fresh.replace(self._ports)
        self._keeper.start()
        return self

    def stop(self) -> None:
        """Shut it down."""
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self._server.stop()

    @property
    def pid(self) -> int:
        """The server's pid. Raises RuntimeError while it is down."""
        return self._server.pid

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_EVERY):
            if self._server.running:
                continue
            log.error("the embedded NATS server has ended, it is started again")
            try:
                self._server.start()
            except (ServerStartError, OSError) as error:
                log.warning("the embedded NATS server does not start", reason=str(error))
                self._stop.wait(_PAUSE)
