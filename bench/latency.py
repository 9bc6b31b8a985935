"""From commit to JetStream, and from commit to target, while a writer keeps a steady rate.

Both flows run, each in a process of its own. The clock of a row starts right before its `INSERT` is
sent, so the source's own commit is part of every latency. It stops at the time that JetStream gave
the message, and at the commit timestamp of the target's transaction that wrote the row
(`track_commit_timestamp`): nobody polls, so measuring disturbs nothing. That timestamp is taken
before the target flushes its log; how long a flush takes there is counted on top, as the average of
the whole run (`pg_stat_wal`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import psycopg

from bench.backlog import TABLE, create_database, create_table, slot_of
from bench.deliver import highest
from bench.errors import FailedError
from bench.fleet import Fleet
from bench.flow import CHANGES, SOURCE, STREAM, Setup
from bench.process import MeasuredProcess
from bench.samples import Samples, add, percentile
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.waiting import wait_until
from bench.writer import PacedWriter

_NAME = "bench_latency"
_SHARES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))
_KEPT_RATE = 0.9


class _Row(msgspec.Struct):
    id: int


class _Envelope(msgspec.Struct):
    after: _Row


@dataclass(frozen=True, slots=True)
class Window:
    """One run: the rows from `first` up to but not including `end`, and how long it lasted."""

    first: int
    end: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Observed:
    """When each row was stored, in seconds since the epoch, by id."""

    in_stream: dict[int, float]
    in_target: dict[int, float]


def run(fleet: Fleet, settings: Settings) -> Samples:
    """Run both flows once and take `settings.runs` windows one after the other.

    Raises:
        FailedError: A flow ended or lost a row, or the writer did not keep its rate.
    """
    create_database(fleet.source.dsn(), _NAME)
    create_database(fleet.target.dsn(), _NAME)
    source, target = fleet.source.dsn(_NAME), fleet.target.dsn(_NAME)
    create_table(source)
    with (
        fleet.nats(_NAME) as server,
        StreamObserver(server.url, STREAM) as stream,
        psycopg.connect(target, autocommit=True) as connection,
        slot_of(source, _NAME) as slot,
    ):
        setup = Setup(fleet.folder / _NAME, server.url, source, target, slot)
        with setup.start(f"capture/{SOURCE}") as capture, setup.start("deliver/target") as deliver:
            writer = PacedWriter(source, settings.rate)
            windows = _write(writer, settings, capture, deliver, lambda: highest(connection))
            _settle(len(writer.sent), stream, connection, settings)
            memory = {
                "rss_latency_capture_mb": capture.peak_rss_mb(),
                "rss_latency_deliver_mb": deliver.peak_rss_mb(),
            }
            capture.stop()
            deliver.stop()
        observed = _observe(len(writer.sent), stream, connection)
    samples: Samples = {}
    for window in windows:
        figures = summary(window, writer.sent, observed.in_stream, observed.in_target)
        if figures["latency_rate_per_s"] < _KEPT_RATE * settings.rate:
            raise FailedError(
                f"the writer kept only {figures['latency_rate_per_s']:.0f} of"
                f" {settings.rate} changes/s"
            )
        add(samples, figures | memory)
    return samples


def summary(
    window: Window,
    sent: dict[int, float],
    in_stream: dict[int, float],
    in_target: dict[int, float],
) -> dict[str, float]:
    """The latency percentiles of one window in milliseconds, and the rate in it."""
    figures = {"latency_rate_per_s": (window.end - window.first) / window.seconds}
    for place, stored in (("stream", in_stream), ("target", in_target)):
        latencies = sorted(stored[row] - sent[row] for row in range(window.first, window.end))
        for name, share in _SHARES:
            figures[f"{place}_{name}_ms"] = percentile(latencies, share) * 1e3
    return figures


def _write(
    writer: PacedWriter,
    settings: Settings,
    capture: MeasuredProcess,
    deliver: MeasuredProcess,
    delivered: Callable[[], int],
) -> list[Window]:
    """Keep the writer busy until every window has passed."""

    def check() -> None:
        writer.check()
        capture.check()
        deliver.check()

    def flowing() -> bool:
        check()
        return delivered() > 0

    windows = []
    with writer:
        wait_until(flowing, what="first row in the target", timeout=settings.timeout_seconds)
        time.sleep(settings.warmup_seconds)
        for _ in range(settings.runs):
            first, started = len(writer.sent) + 1, time.monotonic()
            time.sleep(settings.window_seconds)
            windows.append(Window(first, len(writer.sent) + 1, time.monotonic() - started))
            check()
    writer.check()
    return windows


def _settle(
    rows: int, stream: StreamObserver, target: psycopg.Connection, settings: Settings
) -> None:
    """Return once every row has arrived in both places."""

    def arrived() -> bool:
        row = target.execute(f"select count(*) from {TABLE}").fetchone()
        return row == (rows,) and stream.messages(CHANGES) == rows

    wait_until(arrived, what=f"{rows} rows everywhere", timeout=settings.timeout_seconds)


def _observe(rows: int, stream: StreamObserver, target: psycopg.Connection) -> _Observed:
    decode = msgspec.json.Decoder(_Envelope).decode
    in_stream = {
        decode(message.data).after.id: message.seconds
        for message in stream.read(CHANGES, after=0, count=rows)
    }
    flush = _flush_seconds(target)
    in_target = {
        number: float(seconds) + flush
        for number, seconds in target.execute(
            f"select id, extract(epoch from pg_xact_commit_timestamp(xmin)) from {TABLE}"
        )
    }
    return _Observed(in_stream, in_target)


def _flush_seconds(target: psycopg.Connection) -> float:
    """How long the target's server takes to flush its log, on average (PostgreSQL 14 and newer)."""
    if target.info.server_version >= 180000:
        query = (
            "select sum(fsync_time), sum(fsyncs) from pg_stat_io"
            " where object = 'wal' and context = 'normal'"
        )
    else:
        query = "select wal_sync_time, wal_sync from pg_stat_wal"
    row = target.execute(query).fetchone()
    return float(row[0]) / float(row[1]) / 1e3 if row and row[1] else 0.0
