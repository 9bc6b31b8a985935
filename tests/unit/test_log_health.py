"""What is made of the log that a source's server keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.contracts.source import LogHealth
from connectors.errors import ConfigError, RetryableError
from connectors.log_watch import LogWatch
from connectors.postgres.health.retention import Retention, judge
from connectors.quantities import size_text
from control.supervisor.idle_sources import IdleSources
from control.supervisor.observer import FlowObserver
from control.supervisor.records import State, Truth
from control.supervisor.rendering import Rendered
from tests.integration.streams import until

if TYPE_CHECKING:
    from pathlib import Path

_GIB = 2**30
_DANGER = LogHealth(6 * _GIB, 10 * _GIB, endangered=True, message="6 of 10")


@pytest.mark.parametrize(
    ("retention", "most", "limit", "named"),
    [
        (Retention(9 * _GIB, None, ""), 0, 0, ""),
        (Retention(4 * _GIB, None, ""), 10 * _GIB, 10 * _GIB, ""),
        (Retention(5 * _GIB, None, ""), 10 * _GIB, 10 * _GIB, "max_slot_lag"),
        # Whichever comes first.
        (Retention(5 * _GIB, _GIB, ""), 0, 6 * _GIB, "max_slot_wal_keep_size"),
        (Retention(5 * _GIB, _GIB, ""), 7 * _GIB, 6 * _GIB, "max_slot_wal_keep_size"),
        (Retention(5 * _GIB, -_GIB, ""), 7 * _GIB, 5 * _GIB, "max_slot_wal_keep_size"),
        (Retention(5 * _GIB, 95 * _GIB, ""), 7 * _GIB, 7 * _GIB, "max_slot_lag"),
        (Retention(None, None, "wal_removed"), 0, 0, "is lost (wal_removed)"),
        (Retention(_GIB, None, "idle_timeout"), 0, 0, "is lost (idle_timeout)"),
    ],
)
def test_a_slot_is_judged(retention: Retention, most: int, limit: int, named: str) -> None:
    health = judge("waxtap_shop", retention, most)
    assert health.limit == limit
    assert health.endangered == bool(named) == bool(health.message)
    assert named in health.message


def test_sizes_for_people() -> None:
    told = [size_text(size) for size in (0, 1023, 1536, 5 * _GIB, 3 * 2**50)]
    assert told == ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 GiB", "3072.0 TiB"]


class _Server:
    """A source whose server is as it is told."""

    def __init__(self) -> None:
        self.health: LogHealth | Exception | None = None
        self.looks = 0

    def guard(self) -> LogHealth | None:
        self.looks += 1
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    def seen(self) -> None:
        """Wait until it was looked at twice more."""
        before = self.looks
        until(lambda: self.looks > before + 1)


def test_danger_is_told_once_until_it_is_over() -> None:
    server = _Server()
    with capture_logs() as logs:
        watch = LogWatch("danger", server, interval=0.01)
        try:
            for health in (
                None, _DANGER, RetryableError("postgres.unreachable", "away"), _DANGER,
                LogHealth(), _DANGER, ConfigError("postgres.login", "no"),
            ):  # fmt: skip
                server.health = health
                server.seen()
            watch.check()
        finally:
            watch.stop()
    told = [line["event"] for line in logs if line["log_level"] != "debug"]
    assert told == [
        "the server's log is in danger",
        "the server's log is safe again",
        "the server's log is in danger",
        "the server's log cannot be looked after",
    ]


def test_a_source_that_does_not_run_is_looked_after_by_the_service(tmp_path: Path) -> None:
    servers = {"shop": _Server(), "other": _Server()}
    servers["other"].health = RetryableError("postgres.unreachable", "away")
    idle = IdleSources(lambda name: servers[name].guard(), interval=0.01)
    observer = FlowObserver(tmp_path, idle)
    observer.start()

    def kept(name: str) -> tuple[Truth, str]:
        flow = Rendered(f"capture/{name}", "postgres", {}, 1, 1, "")
        found = observer.conditions(flow.name, State.CRASH_LOOP, flow)
        return next((one.status, one.message) for one in found if one.type == "LogKept")

    try:
        assert kept("shop")[0] is Truth.UNKNOWN
        servers["shop"].health = LogHealth(1, 10)
        until(lambda: kept("shop")[0] is Truth.TRUE)
        servers["shop"].health = _DANGER
        until(lambda: kept("shop") == (Truth.FALSE, "6 of 10"))
        assert kept("other")[0] is Truth.UNKNOWN
        servers["shop"].health = _DANGER._replace(dropped="slot s", message="dropped")
        until(lambda: kept("shop") == (Truth.FALSE, "dropped"))
        # There is no slot any more, but the source has not got over it.
        servers["shop"].health = None
        servers["shop"].seen()
        assert kept("shop") == (Truth.FALSE, "dropped")
        observer.forget("capture/shop")
        until(lambda: servers["other"].looks > 1)
        looks = servers["shop"].looks
        servers["other"].seen()
        assert servers["shop"].looks <= looks + 1
    finally:
        observer.stop()
