"""A list of records behind an API on the same machine, polled by the capture flow."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.fleet import Fleet
from bench.flow import CHANGES, SOURCE, STREAM, start
from bench.process import MeasuredProcess
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.waiting import wait_until

_POLL_SECONDS = 0.01
_PAGE = 1000
# So many polls that find nothing are timed together.
_IDLE_POLLS = 5
_ROOT = Path(__file__).parents[1]


def run(fleet: Fleet, settings: Settings, number: int) -> dict[str, float]:
    """Poll a list for the first time, then without changes, then with one record in a hundred.

    The first poll and the one with changes are timed until the last change is acknowledged in
    JetStream; polls without changes from the first request of one to that of another.

    Raises:
        FailedError: The flow or the API ended, or the flow did not get through.
    """
    name, records = f"rest-{number}", settings.rest_records
    folder = fleet.folder / name
    folder.mkdir(exist_ok=True)
    timeout = settings.timeout_seconds
    with (
        fleet.nats(name) as server,
        StreamObserver(server.url, STREAM) as stream,
        _api(folder / "api.log", records) as (port, api),
        _flow(folder, server.url, port) as process,
    ):

        def polls() -> int:
            process.check()
            api.check()
            return int(_get(port, "/polls"))

        def stored(changes: int) -> bool:
            process.check()
            return stream.messages(CHANGES) >= changes

        def wait(what: str, changes: int) -> float:
            wait_until(lambda: stored(changes), what=what, timeout=timeout, interval=_POLL_SECONDS)
            return time.monotonic()

        wait_until(lambda: polls() > 0, what="poll", timeout=timeout, interval=_POLL_SECONDS)
        clock = time.monotonic()
        first = wait("first poll", records) - clock
        figures = {"rest_first_per_s": records / first}
        figures |= _idle(polls, process, records, timeout)
        changed = records // 100
        clock = time.monotonic()
        _get(port, f"/change?count={changed}")
        figures["rest_changed_s"] = wait("changes", records + changed) - clock
        figures["rss_rest_mb"] = process.peak_rss_mb()
        process.stop()
    return figures


def _idle(
    polls: Callable[[], int], process: MeasuredProcess, records: int, timeout: float
) -> dict[str, float]:
    """What polls cost that find nothing."""

    def next_poll(after: int) -> int:
        wait_until(lambda: polls() > after, what="poll", timeout=timeout, interval=_POLL_SECONDS)
        return polls()

    begun = next_poll(polls())
    clock, cpu = time.monotonic(), process.cpu_seconds()
    ended = begun
    while ended < begun + _IDLE_POLLS:
        ended = next_poll(ended)
    seconds, used = time.monotonic() - clock, process.cpu_seconds() - cpu
    compared = records * (ended - begun)
    return {"rest_compare_per_s": compared / seconds, "rest_compare_cpu_us": used / compared * 1e6}


def _flow(folder: Path, nats_url: str, port: int) -> MeasuredProcess:
    source = {
        "type": "rest",
        "url": f"http://127.0.0.1:{port}/items",
        "allow_http": True,
        "records": "data",
        "key": ["id"],
        "interval": "10ms",
    }
    tree = {"nats": {"url": nats_url}, "sources": {SOURCE: source}}
    return start(f"capture/{SOURCE}", folder, tree)


@contextmanager
def _api(log: Path, records: int) -> Iterator[tuple[int, MeasuredProcess]]:
    command = [sys.executable, "-m", "bench.rest_api", str(records), str(_PAGE)]
    with MeasuredProcess("API", command, log=log, folder=_ROOT) as process:

        def listening() -> bool:
            process.check()
            return log.exists() and log.read_text().endswith("\n")

        wait_until(listening, what="API", timeout=60, interval=_POLL_SECONDS)
        yield int(log.read_text()), process


def _get(port: int, target: str) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", target)
        return connection.getresponse().read().decode()
