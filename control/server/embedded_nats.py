"""A NATS server that a control service runs for itself: `--embedded`.

It ends with the service, also when that is killed, and loses nothing: JetStream syncs every write.
Flows wait meanwhile and go on when it is back, at the same port.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from control.servers.nats import NatsServer
from control.servers.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path


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
        return self

    def stop(self) -> None:
        """Shut it down."""
        self._server.stop()
