"""The configuration as its file says it at the moment, for what is looked up while a flow runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dataflows.spec import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dataflows.spec import Config


class Present:
    """Reads the configuration again when its file has changed. Usable from any thread.

    A dead letter is delivered by the pipelines as they are when it is replayed: whoever mends a
    filter and replays need not restart the delivery for it.

    Args:
        file: The configuration.
        environment: Where `${VAR}` is looked up.
        flow: As in `dataflows.spec.load`.
    """

    def __init__(self, file: Path, environment: Mapping[str, str], flow: str) -> None:
        self._file, self._environment, self._flow = file, environment, flow
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._config: Config | None = None

    def __call__(self) -> Config:
        """The configuration. Raises ConfigError when it is not valid now."""
        with self._lock:
            version = self._look()
            if self._config is None or version is None or version != self._version:
                self._config = load(self._file, self._environment, self._flow)
                self._version = version
            return self._config

    def _look(self) -> tuple[int, int, int] | None:
        """What tells versions of the file apart; None: there is none, and reading it tells why."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
