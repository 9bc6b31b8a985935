"""A full table of MySQL or MariaDB: to decoded changes, and to JetStream while a writer goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

import msgspec
import pymysql

from bench.errors import FailedError
from bench.process import MeasuredProcess
from bench.samples import percentile
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.waiting import wait_until
from connectors.mysql.source import MysqlSource
from connectors.registry import source_spec
from control.servers.binlog_server import BinlogServer

# The writer's rows lie behind the table's own.
_FIRST = 1_000_000_000
_DONE = "snapshot done"


class _Row(msgspec.Struct):
    id: int


class _Envelope(msgspec.Struct):
    op: str
    after: _Row


class _Writer(threading.Thread):
    """Commits single rows at a steady rate, and notes when each was sent."""

    def __init__(self, server: BinlogServer, table: str, rate: int) -> None:
        super().__init__(daemon=True)
        self.sent: dict[int, float] = {}
        self._server, self._table, self._interval = server, table, 1 / rate
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        statement = (
            f"INSERT INTO {self._table} VALUES (%s, 17, 'a paced row', NOW(6), 12.34,"
            ' \'{"color": "green", "weight": 1.5}\', 1, UUID())'
        )
        with (
            closing(
                pymysql.connect(
                    unix_socket=str(self._server.socket), user="waxtap", autocommit=True
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            due = time.monotonic()
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                id_ = _FIRST + len(self.sent)
                self.sent[id_] = time.time()
                cursor.execute(statement, [id_])
                due += self._interval


def decoded(server: BinlogServer, kind: str, table: str, rows: int) -> dict[str, float]:
    """Rows a second from the table to changes, in this process, from the first one on."""
    spec = source_spec(kind).model_validate(
        {"type": kind, "dsn": server.dsn(), "tables": [table], "snapshot": "initial"}
    )
    with closing(MysqlSource("bench_snapshot", spec).open(None)) as reader:  # type: ignore[arg-type]
        found = before = 0
        clock = cpu = 0.0
        while found < rows:
            chunk = reader.read()
            if chunk is None or not chunk.changes:
                continue
            found += len(chunk.changes)
            if not clock:
                clock, cpu, before = time.monotonic(), time.process_time(), found
        seconds, used = time.monotonic() - clock, time.process_time() - cpu
    return {
        f"{kind}_snapshot_decoded_per_s": (found - before) / seconds,
        f"{kind}_snapshot_decoded_cpu_us": used / (found - before) * 1e6,
    }


def stored(
    process: MeasuredProcess,
    stream: StreamObserver,
    changes: str,
    server: BinlogServer,
    kind: str,
    table: str,
    rows: int,
    settings: Settings,
    log: Callable[[], str],
) -> dict[str, float]:
    """Measure a flow that takes a snapshot, with `settings.rate` inserts a second meanwhile.

    Raises:
        FailedError: The flow ended, or the stream lacks a row.
    """

    def begun() -> bool:
        process.check()
        return stream.messages(changes) > 0

    def done() -> bool:
        process.check()
        return _DONE in log()

    writer = _Writer(server, table, settings.rate)
    wait_until(begun, what="first row", timeout=settings.timeout_seconds, interval=0.01)
    clock, cpu, before = time.monotonic(), process.cpu_seconds(), stream.messages(changes)
    writer.start()
    wait_until(done, what="end of the snapshot", timeout=settings.timeout_seconds, interval=0.02)
    seconds, used = time.monotonic() - clock, process.cpu_seconds() - cpu
    writer.stop()
    peak = process.peak_rss_mb()
    process.stop()
    messages = stream.read(changes, after=0, count=stream.messages(changes))
    decode = msgspec.json.Decoder(_Envelope).decode
    found = [(decode(message.data), message.seconds) for message in messages]
    read = {each.after.id for each, _ in found if each.op == "r" and each.after.id < _FIRST}
    if len(read) != rows:
        raise FailedError(f"JetStream holds {len(read)} rows of {rows}")
    figures = {
        f"{kind}_snapshot_per_s": (rows - before) / seconds,
        f"{kind}_snapshot_cpu_us": used / (rows - before) * 1e6,
        f"rss_{kind}_snapshot_mb": peak,
    }
    latencies = sorted(at - writer.sent[each.after.id] for each, at in found if each.op == "c")
    if latencies:
        figures[f"{kind}_snapshot_stream_p99_ms"] = percentile(latencies, 0.99) * 1e3
    return figures
