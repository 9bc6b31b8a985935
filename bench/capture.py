"""The backlog through the capture flow: until JetStream has acknowledged the last change."""

from __future__ import annotations

from dataclasses import dataclass

from bench.backlog import Backlog
from bench.errors import FailedError
from bench.fleet import Fleet
from bench.flow import CHANGES, SOURCE, STREAM, Setup
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.stretch import measure


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
            stretch = measure(
                process, lambda: stream.messages(CHANGES), backlog.changes,
                what="change", timeout=settings.timeout_seconds,
            )  # fmt: skip
            last = stream.last_sequence()
            process.stop()
        found = stream.messages(CHANGES)
        if found != backlog.changes:
            raise FailedError(f"JetStream holds {found} changes of {backlog.changes}")
    figures = {
        "capture_per_s": stretch.per_second,
        "capture_cpu_us": stretch.cpu_us,
        "capture_per_cpu_s": stretch.per_cpu_second,
        "capture_start_cpu_s": stretch.start_cpu_seconds,
        "rss_capture_mb": stretch.peak_mb,
    }
    return figures, Captured(name, last)
