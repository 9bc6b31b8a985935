"""The stored backlog through the delivery flow to an HTTP endpoint on the same machine."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from bench.capture import Captured
from bench.fleet import Fleet
from bench.flow import STREAM, Setup
from bench.process import MeasuredProcess
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.stretch import measure
from bench.waiting import wait_until

_POLL_SECONDS = 0.02
_ROOT = Path(__file__).parents[1]


def run(fleet: Fleet, captured: Captured, settings: Settings, number: int) -> dict[str, float]:
    """Deliver a part of the stream twice: one change a request, and in lists.

    The clock and the CPU time run from the first request to the one that makes the number full.

    Args:
        fleet: The servers.
        captured: A NATS store that holds the backlog.
        settings: Sizes.
        number: Of the run.

    Raises:
        FailedError: The flow or the endpoint ended, or did not get through.
    """
    figures: dict[str, float] = {}
    parts = (
        ("hook", "webhook_requests", settings.webhook_requests),
        ("hooks", "webhook_changes", settings.webhook_changes),
    )
    for sink, key, changes in parts:
        name = f"webhook_{sink}_{number}"
        with (
            fleet.nats(captured.store) as server,
            StreamObserver(server.url, STREAM) as stream,
            _endpoint(fleet.folder / f"{name}.log") as (port, receiver),
        ):
            stream.delete_consumers()
            stream.forget_offsets()
            setup = Setup(
                fleet.folder / name, server.url, fleet.source.dsn(), fleet.target.dsn(), "unused",
                endpoint=f"http://127.0.0.1:{port}/",
            )  # fmt: skip
            with setup.start(f"deliver/{sink}") as process:
                stretch = measure(
                    process, partial(_taken, receiver, port), changes,
                    what="request", timeout=settings.timeout_seconds,
                )  # fmt: skip
                process.stop()
            figures[f"{key}_per_s"] = stretch.per_second
            figures[f"{key}_cpu_us"] = stretch.cpu_us
            figures[f"rss_{key}_mb"] = stretch.peak_mb
    return figures


@contextmanager
def _endpoint(log: Path) -> Iterator[tuple[int, MeasuredProcess]]:
    command = [sys.executable, "-m", "bench.endpoint"]
    with MeasuredProcess("endpoint", command, log=log, folder=_ROOT) as process:

        def told() -> bool:
            process.check()
            return log.read_text().endswith("\n")

        wait_until(told, what="endpoint", timeout=30, interval=_POLL_SECONDS)
        yield int(log.read_text()), process


def _taken(receiver: MeasuredProcess, port: int) -> int:
    receiver.check()
    return _events(port)


def _events(port: int) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/")
        return int(connection.getresponse().read().split()[1])
