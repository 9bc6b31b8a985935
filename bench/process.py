"""A child process whose CPU time and peak memory are read while it runs (Linux: `/proc`)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from bench.errors import FailedError
from control.servers.spawn import spawn

_STOP_SECONDS = 60
_LOG_TAIL = 2000


class MeasuredProcess:
    """Runs a command, and knows what it has used; it ends with us, however we end.

    Peak memory is `VmHWM` of the process's own address space. `ru_maxrss` is not used: it also
    counts what the parent occupied at the moment of the fork (getrusage(2) keeps the highest value
    over an exec).

    Args:
        name: For messages.
        command: The program and its arguments; never secrets.
        log: Where its output goes.
        environment: Added to ours.
        folder: Its working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._name = name
        self._log = log
        self._process = spawn(
            command,
            log=log,
            death_signal=signal.SIGKILL,
            environment={**os.environ, **(environment or {})},
            folder=folder,
        )
        self._observed = psutil.Process(self._process.pid)
        self._peak_kb = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def cpu_seconds(self) -> float:
        """User and system time so far, of the process and its children.

        Raises:
            FailedError: The process has ended.
        """
        try:
            family = (self._observed, *self._observed.children(recursive=True))
            times = [process.cpu_times() for process in family]
        except psutil.NoSuchProcess:
            self.check()
            raise
        return sum(time.user + time.system for time in times)

    def peak_rss_mb(self) -> float:
        """The most memory that the process has occupied so far, in 10^6 bytes."""
        if self._process.poll() is None:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    self._peak_kb = max(self._peak_kb, int(line.split()[1]))
        return self._peak_kb * 1024 / 1e6

    def check(self) -> None:
        """Raise FailedError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise FailedError(f"{self._name} ended with exit code {code}: {self._tail()}")

    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def finish(self, timeout: float) -> None:
        """Wait for the process to end by itself. Raises FailedError unless it exits with 0."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise FailedError(f"{self._name} did not end within {timeout:.0f} s") from None
        if code != 0:
            raise FailedError(f"{self._name} ended with exit code {code}: {self._tail()}")

    def stop(self) -> None:
        """Ask the process to drain and end. Raises FailedError unless it exits with 0."""
        self._process.send_signal(signal.SIGTERM)
        self.finish(_STOP_SECONDS)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-_LOG_TAIL:].strip()
