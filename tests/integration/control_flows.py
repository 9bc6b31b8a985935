"""Supervisors in the test's process: a configuration in memory, small processes as flows."""

from __future__ import annotations

import copy
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.jetstream.spec import NatsSpec
from control.supervisor.flow import Patience
from control.supervisor.group import Launcher
from control.supervisor.host import StateFolder
from control.supervisor.settings import Settings
from control.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from control.supervisor.settings import Observer, SpecSource

_FAKE = (sys.executable, "-S", "-E", str(Path(__file__).with_name("fake_flow.py")))
TREE: dict[str, Any] = {
    "sources": {"shop": {"type": "postgres", "dsn": "${SHOP_DSN}", "snapshot": "never"}},
    "sinks": {"warehouse": {"type": "postgres", "dsn": "${WAREHOUSE_DSN}", "topics": ["db.*"]}},
}


@dataclass(frozen=True)
class MemorySpecs:
    """A revision."""

    revision: int
    tree: dict[str, object]


class MemorySpecSource:
    """Keeps the configuration in memory."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self._latest = MemorySpecs(1, copy.deepcopy(tree))
        self._changed = threading.Condition()

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        with self._changed:
            tree: dict[str, Any] = copy.deepcopy(self._latest.tree)
            change(tree)
            self._latest = MemorySpecs(self._latest.revision + 1, tree)
            self._changed.notify_all()

    def read(self) -> MemorySpecs:
        return self._latest

    def changed(self, after: int, timeout: float) -> MemorySpecs | None:
        with self._changed:
            self._changed.wait_for(lambda: self._latest.revision > after, min(timeout, 0.5))
            return self._latest if self._latest.revision > after else None


class Killed(Exception):  # noqa: N818 - it is no error
    """The service is to end as if it were killed."""


class service:  # noqa: N801 - it is used as a function
    """A control service; one that is left by `Killed` leaves everything as it is."""

    def __init__(
        self, url: str, state: Path, specs: SpecSource, observer: Observer | None = None
    ) -> None:
        nats = {"url": url}
        self._folder = StateFolder(state)
        patience = Patience(grace=1.0, first=0.2, longest=0.4, healthy=60.0, loop=3)
        environment = {"PATH": os.environ["PATH"], "SHOP_DSN": "s3cret"}
        spec = NatsSpec.model_validate(nats)
        settings = Settings(spec, Launcher(nats, environment, _FAKE), self._folder, patience)
        self._supervisor = Supervisor(settings, specs, observer)

    def __enter__(self) -> Supervisor:
        self._supervisor.start()
        return self._supervisor

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> bool:
        killed = kind is Killed
        self._supervisor.stop(keep_flows=killed)
        self._folder.close()
        return killed


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> float:
    """Wait until a condition holds; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began


def starts(state: Path, flow: str) -> list[int]:
    """The pids of all processes that a flow has had in a state folder."""
    file = state / "flows" / flow.replace("/", ".") / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
