"""`make demo`: the whole way from a source to PostgreSQL, on servers of its own.

Environment: `DEMO_SOURCE` (postgres, mariadb or rest), `DEMO_SECONDS` (20) of writing, `DEMO_RATE`
(2000) changes a second, `DEMO_SEED`, and `KEEP=1` to leave everything running until Ctrl-C. Exits
0 if source and target agree, 1 if they do not or something broke, 130 or 143 when interrupted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.errors import WaxtapError
from control.demo import mariadb_shop, rest_shop, shop
from control.demo.compare import Comparison, compare
from control.demo.deployment import SOURCES, Deployment
from control.demo.display import Display, latencies
from control.demo.mariadb_workload import MariadbWorkload
from control.demo.progress import Progress
from control.demo.rest_shop import RestShop, RestWorkload
from control.demo.workload import Workload
from control.servers.mariadb import MariadbServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

_TICK_SECONDS = 0.1
_DRAIN_SECONDS = 120.0
_SETTLE_SECONDS = 15.0
_NAMES = {"postgres": "PostgreSQL", "mariadb": "MariaDB", "rest": "an API,"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How the demo runs; see the module."""

    source: str
    seconds: float
    rate: int
    seed: int
    keep: bool

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read the environment. Raises ValueError for what is not a number or no such source."""
        source = environment.get("DEMO_SOURCE") or SOURCES[0]
        if source not in SOURCES:
            raise ValueError(f"SOURCE is one of {', '.join(SOURCES)}")
        return cls(
            source=source,
            seconds=float(environment.get("DEMO_SECONDS") or 20),
            rate=int(environment.get("DEMO_RATE") or 2000),
            seed=int(environment.get("DEMO_SEED") or 1),
            keep=environment.get("KEEP", "") not in ("", "0"),
        )


class _Interrupted(BaseException):
    """SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        self.number = number


def main() -> int:
    """Run the demo; returns the exit status."""
    _raise_on_signals()
    display = Display()
    try:
        settings = Settings.of(os.environ)
        with Deployment(settings.source) as deployment:
            return _run(deployment, display, settings)
    except _Interrupted as interruption:
        display.say("interrupted; everything is stopped")
        return 128 + interruption.number
    except (WaxtapError, ValueError) as error:
        display.say(f"demo: {error}")
        return 1


def _run(deployment: Deployment, display: Display, settings: Settings) -> int:
    for server, name in (
        (deployment.nats, "NATS"),
        (deployment.source, "source: " + _NAMES[settings.source]),
        (deployment.target, "target: PostgreSQL"),
    ):
        display.say(f"{name} {server.version} on port {server.port}")
    deployment.prepare()
    deployment.start_flows()
    display.say("both flows run; the shop opens")

    query = [rest_shop.REVISION] if isinstance(deployment.source, RestShop) else []
    progress = Progress(deployment.warehouse_dsn, *query)
    workload = _workload(deployment, settings, progress)
    progress.start()
    workload.start()
    began = time.monotonic()
    try:
        with display:

            def until(phase: str, seconds: float, done: Callable[[], bool]) -> bool:
                deadline = time.monotonic() + seconds
                while not done() and time.monotonic() < deadline:
                    deployment.check()
                    workload.check()
                    display.show(phase, progress.standing())
                    time.sleep(_TICK_SECONDS)
                return done()

            until("writing", settings.seconds, lambda: False)
            workload.stop()
            drained = until("draining", _DRAIN_SECONDS, lambda: _drained(progress))
            if isinstance(deployment.source, RestShop):
                # A product that is gone has no revision to wait for; the next poll may tell of it.
                until("settling", _SETTLE_SECONDS, lambda: not _compare(deployment).differences)
            elapsed = time.monotonic() - began
            display.show("done" if drained else "not drained", progress.standing())
    finally:
        progress.stop()
    standing = progress.standing()
    if not drained:
        lag = standing.committed - standing.delivered
        display.say(f"the target is still {lag:,} changes behind after {_DRAIN_SECONDS:.0f} s")
        return 1

    result = _compare(deployment)
    for difference in result.differences:
        display.say(difference)
    if result.differences:
        display.say("source and target differ")
        return 1
    display.say(
        f"source and target agree: {result.rows:,} rows in {result.tables} tables "
        f"({standing.delivered:,} changes in {elapsed:.1f} s, "
        f"{standing.delivered / elapsed:,.0f} a second; commit to target {latencies(standing)})"
    )
    if settings.keep:
        _keep(deployment, display)
    failed = {flow: code for flow, code in deployment.stop_flows().items() if code != 0}
    for flow, code in failed.items():
        display.say(f"{flow} ended with status {code}:\n{deployment.last_words(flow)}")
    return 1 if failed else 0


def _workload(
    deployment: Deployment, settings: Settings, progress: Progress
) -> Workload | MariadbWorkload | RestWorkload:
    if isinstance(deployment.source, RestShop):
        return RestWorkload(deployment.source, settings.rate, progress, settings.seed)
    if isinstance(deployment.source, MariadbServer):
        return MariadbWorkload(deployment.source, settings.rate, progress, settings.seed)
    return Workload(deployment.shop_dsn, settings.rate, progress, settings.seed)


def _compare(deployment: Deployment) -> Comparison:
    target = deployment.warehouse_dsn
    if isinstance(deployment.source, RestShop):
        return rest_shop.compare(deployment.source, target)
    if isinstance(deployment.source, MariadbServer):
        return mariadb_shop.compare(deployment.source, target, shop.TABLES)
    return compare(deployment.shop_dsn, target, shop.TABLES)


def _drained(progress: Progress) -> bool:
    standing = progress.standing()
    return standing.delivered >= standing.committed


def _keep(deployment: Deployment, display: Display) -> None:
    """Leave everything running until SIGINT or SIGTERM, or until something breaks."""
    display.say(
        "\neverything goes on until Ctrl-C; what you write into the source appears in the target\n"
        f"  source      {_client(deployment)}\n"
        f"  target      psql '{deployment.warehouse_dsn}'\n"
        f"  NATS        {deployment.nats.url}\n"
        f"  monitoring  {deployment.nats.monitoring_url}/jsz?streams=true\n"
        f"  files       {deployment.folder}"
    )
    try:
        while True:
            deployment.check()
            time.sleep(_TICK_SECONDS)
    except _Interrupted:
        display.say("stopping")


def _client(deployment: Deployment) -> str:
    """How to get at the source."""
    if isinstance(deployment.source, RestShop):
        return f"curl -H 'authorization: Bearer {rest_shop.TOKEN}' {deployment.source.url}"
    if isinstance(deployment.source, MariadbServer):
        return f"mariadb --socket={deployment.source.socket} --user=waxtap {shop.DATABASE}"
    return f"psql '{deployment.shop_dsn}'"


def _raise_on_signals() -> None:
    """The first SIGINT or SIGTERM interrupts; while that cleans up, further ones are ignored."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        # The writer is cut off in the middle of its work: what psycopg says about that is no news.
        logging.getLogger("psycopg").setLevel(logging.CRITICAL)
        raise _Interrupted(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)


if __name__ == "__main__":
    sys.exit(main())
