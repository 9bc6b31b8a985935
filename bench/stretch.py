"""What a flow needs from the first of its outputs to the last, without its start."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from bench.process import MeasuredProcess
from bench.waiting import wait_until

_POLL_SECONDS = 0.02


class Stretch(NamedTuple):
    """From the first output to the one that makes the number full.

    Attributes:
        done: How many came meanwhile.
        seconds: By the clock.
        cpu_seconds: Of the process.
        start_cpu_seconds: Of the process, before: interpreter, imports, preflight.
        peak_mb: The most memory that the process has occupied so far, in 10^6 bytes.
    """

    done: int
    seconds: float
    cpu_seconds: float
    start_cpu_seconds: float
    peak_mb: float

    @property
    def per_second(self) -> float:
        """Outputs a second."""
        return self.done / self.seconds

    @property
    def per_cpu_second(self) -> float:
        """Outputs a second of CPU time."""
        return self.done / self.cpu_seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of an output, in microseconds."""
        return self.cpu_seconds / self.done * 1e6


def measure(
    process: MeasuredProcess, count: Callable[[], int], whole: int, *, what: str, timeout: float
) -> Stretch:
    """Wait until a process has brought `whole` outputs about.

    Args:
        process: Has been started.
        count: How many outputs there are; cheap.
        whole: How many there are to be.
        what: One of them, for errors.
        timeout: Seconds for the first, and for the last.

    Raises:
        FailedError: The process ended, or did not get through.
    """

    def reached(wanted: int) -> bool:
        process.check()
        return count() >= wanted

    wait_until(lambda: reached(1), what=f"first {what}", timeout=timeout, interval=_POLL_SECONDS)
    before, clock, cpu = count(), time.monotonic(), process.cpu_seconds()
    wait_until(lambda: reached(whole), what=f"last {what}", timeout=timeout, interval=_POLL_SECONDS)
    done = count() - before
    seconds, used = time.monotonic() - clock, process.cpu_seconds() - cpu
    return Stretch(done, seconds, used, cpu, process.peak_rss_mb())
