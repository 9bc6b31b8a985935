"""Requests to a webhook source: until each is acknowledged, with `sync_interval: always`."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from bench.errors import FailedError
from bench.fleet import Fleet
from bench.process import MeasuredProcess
from bench.sender import SECRET
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.waiting import wait_until
from control.servers.ports import free_port

_ROOT = Path(__file__).parents[1]
_SOURCE = "hooks"
_CHANGES = f"CDC.{_SOURCE}.db.>"
_CONNECTIONS = 64
_POLL_SECONDS = 0.05
_CAPTURE = [sys.executable, "-m", "bytewax.run", "dataflows.main"]
_WAXTAP = [sys.executable, "-c", "from control.cli.app import main; main()"]
_INGEST = [*_WAXTAP, "ingest", "--source", _SOURCE]


def run(fleet: Fleet, settings: Settings, number: int) -> dict[str, float]:
    """Send requests to the capture flow itself, then to an endpoint beside it.

    The rate is that of the sender, from its first request to its last answer; the CPU time that of
    the process that answers.

    Raises:
        FailedError: A process ended, a request was refused, or the stream holds something else.
    """
    inside = _run(fleet, settings, f"ingest-inside-{number}", beside=False)
    beside = _run(fleet, settings, f"ingest-beside-{number}", beside=True)
    return {f"ingest_{key}": value for key, value in inside.items()} | {
        f"ingest_beside_{key}": value for key, value in beside.items()
    }


def _run(fleet: Fleet, settings: Settings, name: str, *, beside: bool) -> dict[str, float]:
    folder = fleet.folder / name
    folder.mkdir()
    port, amount = free_port(), settings.ingest_requests
    with ExitStack() as stack:
        server = stack.enter_context(fleet.nats(name))
        configuration = folder / "waxtap.yaml"
        configuration.write_text(json.dumps(_configuration(server.url, port, serve=not beside)))
        environment = {
            "PYTHONPATH": str(_ROOT),
            "WAXTAP_CONFIG": str(configuration),
            "WAXTAP_FLOW": f"capture/{_SOURCE}",
        }

        def start(command: Sequence[str], what: str) -> MeasuredProcess:
            return stack.enter_context(
                MeasuredProcess(
                    what,
                    command,
                    log=folder / f"{what}.log",
                    environment=environment,
                    folder=folder,
                )
            )

        capture = start(_CAPTURE, "capture")
        endpoint = start(_INGEST, "ingest") if beside else capture

        def ready() -> bool:
            capture.check()
            endpoint.check()
            return _healthy(port)

        wait_until(ready, what="endpoint", timeout=60, interval=_POLL_SECONDS)
        before = endpoint.cpu_seconds()
        figures = _send(folder / "sender.log", port, amount, settings.timeout_seconds)
        used = endpoint.cpu_seconds() - before
        stream = stack.enter_context(StreamObserver(server.url, f"CDC_{_SOURCE}"))
        clock = time.monotonic()

        def captured() -> bool:
            capture.check()
            return stream.messages(_CHANGES) >= amount

        wait_until(
            captured, what="last change", timeout=settings.timeout_seconds, interval=_POLL_SECONDS
        )
        figures["behind_s"] = time.monotonic() - clock
        figures["cpu_us"] = used / amount * 1e6
        figures["rss_mb"] = endpoint.peak_rss_mb()
        endpoint.stop()
        if beside:
            capture.stop()
        found = stream.messages(_CHANGES)
        if found != amount:
            raise FailedError(f"the stream holds {found} changes of {amount} requests")
    return figures


def _configuration(url: str, port: int, *, serve: bool) -> dict[str, object]:
    return {
        "nats": {"url": url},
        "sources": {
            _SOURCE: {
                "type": "webhook",
                "listen": f"127.0.0.1:{port}",
                "path": "/hooks",
                "serve": serve,
                "verify": {"standard": [SECRET]},
                "dedupe": {"header": "webhook-id", "window": "10m"},
                "map": {
                    "table": "orders",
                    "row": "body.data",
                    "op": {"expression": "body.type", "values": {"order.deleted": "d"}},
                },
            }
        },
    }


def _healthy(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False


def _send(log: Path, port: int, amount: int, timeout: float) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.sender", str(port), str(amount), str(_CONNECTIONS)]
    with MeasuredProcess("sender", command, log=log, folder=_ROOT) as process:
        process.finish(timeout)
    figures: dict[str, float] = json.loads(log.read_text().splitlines()[-1])
    return figures
