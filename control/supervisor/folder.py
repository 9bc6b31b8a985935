"""The folder of one flow: its configuration, its recovery store, its log, and who runs there.

    waxtap.yaml     what the flow runs on; references unresolved, readable by its owner only
    run.json        the processes of the present run
    lock            held by each of these processes as long as it lives
    log, log.1      what they write
    recovery/       Bytewax's
    ended           made by a flow that has nothing left to do

The lock is inherited by the processes and by nobody else, so that it tells for certain whether one
of them lives, whatever has become of the service that started them: the kernel releases it when the
last of them ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import yaml

from control.servers.pidfile import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping


class Run(msgspec.Struct, frozen=True):
    """One run of a flow: the processes that were started together.

    Attributes:
        flow: Its name.
        mark: What it was started with; a flow whose mark should be another one is started anew.
        members: Its processes.
        metrics: Where each of them serves its metrics: a port of 127.0.0.1.
        started: When (seconds since 1970).
    """

    flow: str
    mark: str
    members: tuple[ProcessIdentity, ...]
    metrics: tuple[int, ...]
    started: float


class FlowFolder:
    """The files of one flow.

    Args:
        path: The folder; made when the flow is first started.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configuration = path / "waxtap.yaml"
        self.log = path / "log"
        self.recovery = path / "recovery"
        self.ended = path / "ended"
        self._run, self._lock = path / "run.json", path / "lock"

    def make(self) -> None:
        """Make the folder, for this user only."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write_configuration(self, tree: Mapping[str, object]) -> None:
        """Replace the configuration, whole or not at all, unless it says that already."""
        text = yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)
        if not self.configuration.exists() or self.configuration.read_text("utf-8") != text:
            _replace(self.configuration, text.encode())

    def write_run(self, run: Run) -> None:
        """Remember the processes of the present run."""
        _replace(self._run, msgspec.json.encode(run))

    def read_run(self) -> Run | None:
        """The run that was remembered last; None if there is none, or it cannot be read."""
        try:
            return msgspec.json.decode(self._run.read_bytes(), type=Run)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def forget_run(self) -> None:
        """No run is under way."""
        self._run.unlink(missing_ok=True)

    def lock(self) -> int | None:
        """Take the lock, for processes to inherit; None while processes of another run hold it.

        Returns:
            A file descriptor, to be closed once the processes have theirs.
        """
        file = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file

    def held(self) -> bool:
        """Whether a process of some run lives."""
        if not self._lock.exists():
            return False
        file = self.lock()
        if file is not None:
            os.close(file)
        return file is None

    def holders(self) -> list[ProcessIdentity]:
        """The processes that hold the lock, as far as we may see them: ours do, we do not."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) != os.getpid() and _has_open(process, self._lock):
                identity = ProcessIdentity.of(int(process.name))
                if identity is not None:
                    found.append(identity)
        return found


def _has_open(process: Path, file: Path) -> bool:
    try:
        return any(link.readlink() == file for link in (process / "fd").iterdir())
    except OSError:  # it has gone, or belongs to another user
        return False


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
