"""What every private server offers, whatever program it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from control.servers.errors import ServerStartError
from control.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from control.servers.folder import ServerFolder
    from control.servers.process import ServerProcess

_PORT_TRIES = 5


class LocalServer(ABC):
    """A server on this machine, started and stopped at will; a context manager.

    Ports that were found once stay the same through `stop`, `kill` and a further `start`.

    Attributes:
        folder: What it stores, and its log.
        port: Where it listens on 127.0.0.1; 0 before the first start.
    """

    # What a server's log says, in lower case, when somebody else was faster to take its port.
    port_taken: ClassVar[str]
    start_seconds: ClassVar[float] = 60.0

    def __init__(self, process: ServerProcess, folder: ServerFolder) -> None:
        self._process = process
        self._folder = folder
        self.folder = folder.path
        self.port = 0

    def start(self) -> Self:
        """Start, and return once clients are served; a data folder that is new is made first.

        Raises:
            ServerStartError: It did not come up; tells the end of its log.
        """
        self._prepare()
        for tries_left in reversed(range(_PORT_TRIES)):
            fresh = not self.port
            if fresh:
                self._choose_ports()
            try:
                self._process.start(self._command(), self._ready, self.start_seconds)
            except ServerStartError as error:
                lost_race = fresh and self.port_taken in error.message.lower()
                if not lost_race or not tries_left:
                    raise
                self.port = 0
                continue
            return self
        raise AssertionError("the last try returns or raises")

    def stop(self) -> None:
        """Shut down, insist when clients hold it up, and remove a temporary folder."""
        self._process.stop()
        self._folder.discard()

    def restart(self) -> Self:
        """Shut down and start again with the same ports and data."""
        self._process.stop()
        return self.start()

    def put_file(self, name: str, content: bytes) -> Path:
        """Write a file that only the server's user may read (a TLS key, say) into its folder."""
        return self._folder.put(name, content)

    @abstractmethod
    def _prepare(self) -> None:
        """Make the folder and what it must hold whatever the ports are.

        Raises:
            ServerStartError: It could not be made.
        """

    def _choose_ports(self) -> None:
        """Find free ones."""
        self.port = free_port()

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """Write the configuration for the present ports; returns what starts the server."""

    @abstractmethod
    def _ready(self, pid: int) -> bool:
        """True once this very server serves clients."""

    @property
    def pid(self) -> int:
        """The server's pid. Raises RuntimeError when it is down."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the server's process runs."""
        return self._process.running

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._process.log

    def kill(self) -> None:
        """End it and all its children with SIGKILL; `start` brings it back with its data."""
        self._process.kill()

    def suspend(self) -> None:
        """Freeze it and all its children (SIGSTOP)."""
        self._process.suspend()

    def resume(self) -> None:
        """Let a suspended server go on (SIGCONT)."""
        self._process.resume()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
