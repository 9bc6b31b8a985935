"""Which machine this is, and which service a state folder belongs to."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from uuid import uuid4

from connectors.errors import ConfigError


def host_identity() -> str:
    """Names this machine, since its boot, as far as its processes can be seen from here.

    Two services whose host is the same can end one another's processes.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


class StateFolder:
    """A service's folder, used by one service at a time.

    Args:
        path: Made if it does not exist.

    Attributes:
        service: The id of the service that this folder belongs to, the same after a restart.

    Raises:
        ConfigError: It cannot be used, or a service that runs uses it.
    """

    def __init__(self, path: Path) -> None:
        # What /proc tells of open files goes by the real path.
        self.path = path.resolve()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                "control.state_unusable",
                f"the state folder cannot be used: {error.strerror}",
                where=str(self.path),
                cure="check the rights of the folder that --state names",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise ConfigError(
                "control.state_in_use",
                "another control service uses this folder",
                where=str(self.path),
                cure="stop it, or name another folder with --state",
            ) from error
        self.service = self._identity()

    @property
    def flows(self) -> Path:
        """Where each flow has its folder."""
        return self.path / "flows"

    def close(self) -> None:
        """Let another service use the folder."""
        os.close(self._lock)

    def _identity(self) -> str:
        file = self.path / "service-id"
        if file.exists() and (known := file.read_text().strip()):
            return known
        made = uuid4().hex[:16]
        fresh = file.with_name("service-id.new")
        fresh.write_text(made + "\n")
        fresh.replace(file)
        return made
