"""What every private server offers, whatever program it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from control.servers.process import ServerProcess


class LocalServer(ABC):
    """A server on this machine, started and stopped at will; a context manager.

    Ports that were found once stay the same through `stop`, `kill` and a further `start`.

    Attributes:
        folder: What it stores, and its log.
        port: Where it listens on 127.0.0.1; 0 before the first start.
    """

    def __init__(self, process: ServerProcess, folder: Path) -> None:
        self._process = process
        self.folder = folder
        self.port = 0

    @abstractmethod
    def start(self) -> Self:
        """Start, and return once clients are served.

        Raises:
            ServerStartError: It did not come up; tells the end of its log.
        """

    @abstractmethod
    def stop(self) -> None:
        """Shut down, and remove a temporary folder."""

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
