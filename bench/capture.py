"""The backlog through the capture flow: until JetStream has acknowledged the last change."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.backlog import Backlog
from bench.errors import FailedError
from bench.fleet import Fleet
from bench.flow import CHANGES, SOURCE, STREAM, Setup
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.waiting import wait_until

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Captured:
    """A NATS store that holds the backlog.

    Attributes:
        store: The name to start its server with.
        last_sequence: Of the last change in it.
    """

    store: str
    last_sequence: int


def run(
    fleet: Fleet, backlog: Backlog, settings: Settings, number: int
) -> tuple[dict[str, float], Captured]:
    """Capture the whole backlog once into an empty JetStream.

    The clock and the CPU time run from the first stored change to the last one; what the process
    used before (interpreter, imports, preflight) is a figure of its own. JetStream stores a change
    before it acknowledges it, so the wait ends with the flow's own stop, which drains.

    Raises:
        FailedError: The flow ended, did not get through, or the stream holds something else.
    """
    name = f"capture-{number}"
    with (
        backlog.slot(f"bench_capture_{number}") as slot,
        fleet.nats(name) as server,
        StreamObserver(server.url, STREAM) as stream,
    ):
        setup = Setup(fleet.folder / name, server.url, backlog.dsn, fleet.target.dsn(), slot)
        with setup.start(f"capture/{SOURCE}") as process:

            def stored(changes: int) -> bool:
                process.check()
                return stream.messages(CHANGES) >= changes

            timeout = settings.timeout_seconds
            wait_until(
                lambda: stored(1), what="first change", timeout=timeout, interval=_POLL_SECONDS
            )
            before, clock, cpu = stream.messages(CHANGES), time.monotonic(), process.cpu_seconds()
            wait_until(
                lambda: stored(backlog.changes),
                what="last change",
                timeout=timeout,
                interval=_POLL_SECONDS,
            )
            seconds, used = time.monotonic() - clock, process.cpu_seconds() - cpu
            last, peak = stream.last_sequence(), process.peak_rss_mb()
            process.stop()
        found = stream.messages(CHANGES)
        if found != backlog.changes:
            raise FailedError(f"JetStream holds {found} changes of {backlog.changes}")
    changes = backlog.changes - before
    figures = {
        "capture_per_s": changes / seconds,
        "capture_cpu_us": used / changes * 1e6,
        "capture_per_cpu_s": changes / used,
        "capture_start_cpu_s": cpu,
        "rss_capture_mb": peak,
    }
    return figures, Captured(name, last)
