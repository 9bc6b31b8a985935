"""A table that is full already: to decoded changes, and to JetStream while a writer goes on."""

from __future__ import annotations

import time
from contextlib import closing

import msgspec
import psycopg

from bench.backlog import PUBLICATION, TABLE, create_database, create_table, fill, slot_of
from bench.errors import FailedError
from bench.fleet import Fleet
from bench.flow import CHANGES, SOURCE, STREAM, Setup
from bench.samples import percentile
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.waiting import wait_until
from bench.writer import PacedWriter
from connectors.postgres.source import PostgresSource
from connectors.postgres.spec import SourceSpec

_NAME = "bench_snapshot"
# The paced writer counts from 1.
_FIRST = 100_000_001
_DONE = "snapshot done"


class _Row(msgspec.Struct):
    id: int


class _Envelope(msgspec.Struct):
    op: str
    after: _Row


def run(fleet: Fleet, settings: Settings, number: int) -> dict[str, float]:
    """Take two snapshots of the same table, the second one with `settings.rate` inserts a second.

    Raises:
        FailedError: The flow ended, or the stream lacks a row.
    """
    dsn, rows = fleet.source.dsn(_NAME), settings.snapshot_rows
    if number == 1:
        create_database(fleet.source.dsn(), _NAME)
        create_table(dsn)
        fill(dsn, _FIRST, _FIRST + rows - 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        # what earlier runs have written
        connection.execute(f"delete from {TABLE} where id < {_FIRST}")
        connection.execute(f"vacuum analyze {TABLE}")
    figures = {"snapshot_decoded_per_s": _decoded(dsn, rows)}
    with (
        slot_of(dsn, _NAME) as slot,
        fleet.nats(f"{_NAME}-{number}") as server,
        StreamObserver(server.url, STREAM) as stream,
    ):
        folder = fleet.folder / f"{_NAME}-{number}"
        setup = Setup(folder, server.url, dsn, fleet.target.dsn(), slot, snapshot="initial")
        log = folder / f"capture-{SOURCE}.log"
        with setup.start(f"capture/{SOURCE}") as process, PacedWriter(dsn, settings.rate) as writer:

            def begun() -> bool:
                process.check()
                return stream.messages(CHANGES) > 0

            def done() -> bool:
                process.check()
                return _DONE in log.read_text()

            timeout = settings.timeout_seconds
            wait_until(begun, what="first row", timeout=timeout, interval=0.01)
            first, clock, cpu = len(writer.sent) + 1, time.monotonic(), process.cpu_seconds()
            before = stream.messages(CHANGES)
            wait_until(done, what="end of the snapshot", timeout=timeout, interval=0.02)
            seconds, used = time.monotonic() - clock, process.cpu_seconds() - cpu
            end = len(writer.sent) + 1
            writer.stop()
            writer.check()
            peak = process.peak_rss_mb()
            process.stop()
        stored = stream.read(CHANGES, after=0, count=stream.messages(CHANGES))
    decode = msgspec.json.Decoder(_Envelope).decode
    found = [(decode(message.data), message.seconds) for message in stored]
    read = {each.after.id for each, _ in found if each.op == "r"}
    if sum(number >= _FIRST for number in read) != rows:
        raise FailedError(f"JetStream holds {len(read)} rows of {rows}")
    latencies = sorted(
        at - writer.sent[each.after.id]
        for each, at in found
        if each.op == "c" and first <= each.after.id < end
    )
    changes = rows - before
    figures |= {
        "snapshot_per_s": changes / seconds,
        "snapshot_cpu_us": used / changes * 1e6,
        "rss_snapshot_mb": peak,
    }
    if latencies:
        figures["snapshot_stream_p50_ms"] = percentile(latencies, 0.5) * 1e3
        figures["snapshot_stream_p99_ms"] = percentile(latencies, 0.99) * 1e3
    return figures


def _decoded(dsn: str, rows: int) -> float:
    """Rows a second from the table to changes, in this process, from the first one on."""
    with slot_of(dsn, _NAME) as slot:
        spec = SourceSpec.model_validate(
            {
                "type": "postgres",
                "dsn": dsn,
                "tables": [f"public.{TABLE}"],
                "publication": PUBLICATION,
                "slot": slot,
                "create": False,
                "snapshot": "initial",
            }
        )
        with closing(PostgresSource(SOURCE, spec).open(None)) as reader:
            found = before = 0
            clock = 0.0
            while found < rows:
                chunk = reader.read()
                if chunk is None or not chunk.changes:
                    continue
                found += len(chunk.changes)
                if not clock:
                    clock, before = time.monotonic(), found
            return (found - before) / (time.monotonic() - clock)
