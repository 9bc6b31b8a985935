"""Knows a process again: its pid alone may by now belong to another."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, told apart from any later one with the same pid.

    Attributes:
        pid: Its process id.
        started: Start time in clock ticks since boot: proc(5), `/proc/pid/stat`, field 22.
        boot: The kernel's boot id.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The process that has this pid now; None if there is none, or only a zombie."""
        try:
            # The second field is the name in parentheses, which may hold spaces and parentheses.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        if fields[0] in "ZX":
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(pid, int(fields[19]), boot)

    @classmethod
    def read(cls, path: Path) -> ProcessIdentity | None:
        """What `write` wrote; None if the file is missing or not whole."""
        try:
            pid, started, boot = path.read_text().split()
            return cls(int(pid), int(started), boot)
        except (FileNotFoundError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Remember the process in `path`."""
        path.write_text(f"{self.pid} {self.started} {self.boot}\n")

    def alive(self) -> bool:
        """True while exactly this process runs."""
        return ProcessIdentity.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process; nothing happens if it has gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):  # it went in this very moment
                os.kill(self.pid, number)

    def end(self, seconds: float) -> bool:
        """Kill exactly this process and wait until it has gone. False if it outlived `seconds`."""
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def descendants(pid: int) -> list[ProcessIdentity]:
    """The living processes below `pid`, nearest first."""
    found: list[ProcessIdentity] = []
    queue = [pid]
    while queue:
        children = _children(queue.pop(0))
        found += [known for child in children if (known := ProcessIdentity.of(child))]
        queue += children
    return found


def _children(pid: int) -> list[int]:
    """The processes that a process has started; it may end meanwhile, and so may its threads."""
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
    for task in tasks:
        try:
            text = (task / "children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [int(child) for child in text.split()]
    return found
