"""A process that supervises flows: `python -m tests.e2e.control_service STATE NATS_URL CONFIG`.

The configuration is the file CONFIG, looked at again and again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from connectors.jetstream.spec import NatsSpec
from control.supervisor.group import Launcher
from control.supervisor.host import StateFolder
from control.supervisor.supervisor import Settings, Supervisor
from dataflows import reporting


@dataclass(frozen=True)
class FileSpecs:
    """A revision of a file."""

    revision: int
    tree: dict[str, object]


class FileSpecSource:
    """Reads a file; its time of change is the revision."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> FileSpecs:
        revision = self._path.stat().st_mtime_ns
        return FileSpecs(revision, yaml.safe_load(self._path.read_text()))

    def changed(self, after: int, timeout: float) -> FileSpecs | None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if (found := self.read()).revision > after:
                return found
            time.sleep(0.1)
        return None


def main(state: str, url: str, config: str) -> None:
    reporting.configure(os.environ)
    nats = {"url": url}
    settings = Settings(
        NatsSpec.model_validate(nats), Launcher(nats, os.environ), StateFolder(Path(state))
    )
    supervisor = Supervisor(settings, FileSpecSource(Path(config)))
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    supervisor.start()
    asked.wait()
    supervisor.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
