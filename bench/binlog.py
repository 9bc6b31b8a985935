"""MySQL or MariaDB as the source: a backlog in its log, to acknowledged in JetStream."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pymysql
from pymysql.cursors import Cursor

from bench import binlog_debezium, binlog_snapshot
from bench.binlog_library import Result
from bench.errors import BenchError, FailedError, UnavailableError
from bench.fleet import Fleet
from bench.flow import start
from bench.process import MeasuredProcess
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.stretch import measure
from bench.waiting import wait_until
from control.servers.binlog_server import BinlogServer
from control.servers.errors import ServerMissingError
from control.servers.mariadb import MariadbServer
from control.servers.mysql import MysqlServer

DATABASE = "bench"
ROWS, SINGLE = "items", "singles"
_SOURCE = "bench"
_STREAM = f"CDC_{_SOURCE}"
_CHANGES = f"CDC.{_SOURCE}.db.>"
_ROOT = Path(__file__).parents[1]
# Loading is not what is measured, and 200,000 commits that wait for the disk take minutes.
_UNSYNCED = {"innodb-flush-log-at-trx-commit": "2", "sync-binlog": "0"}
_CREATE = """
CREATE TABLE {} (
    id bigint PRIMARY KEY,
    quantity int NOT NULL,
    title varchar(120) NOT NULL,
    created timestamp(6) NOT NULL,
    price decimal(12,2) NOT NULL,
    attributes json NOT NULL,
    active boolean NOT NULL,
    token char(36) NOT NULL
)"""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a backlog begins in the log."""

    file: str
    position: int


def run(
    fleet: Fleet, settings: Settings, kind: str, tell: Callable[[str], None]
) -> Iterator[dict[str, float]]:
    """Measure one kind of server; yields figures as they are there.

    Raises:
        UnavailableError: The server is not on this machine, or somebody whom it is compared with.
        FailedError: The flow did not get through, or the stream holds something else; or that of
            somebody whom it is compared with. Then everything else was measured.
    """
    try:
        made = (MysqlServer if kind == "mysql" else MariadbServer)(_UNSYNCED)
    except ServerMissingError as error:
        raise UnavailableError(str(error)) from None
    problems: list[BenchError] = []
    with made as server:
        with closing(_connect(server)) as session, session.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        backlogs = (
            (ROWS, settings.binlog_changes, settings.transaction_rows, "rows"),
            (SINGLE, settings.binlog_transactions, 1, "single"),
        )
        for table, changes, size, label in backlogs:
            flows = [_Flow(fleet, server, kind, table, n) for n in range(1, settings.runs + 1)]
            with closing(_connect(server)) as session, session.cursor() as cursor:
                cursor.execute(f"USE {DATABASE}")
                cursor.execute(_CREATE.format(table))
                for flow in flows:
                    flow.anchor(settings)
                place = _place(cursor)
                debezium = None
                if table == ROWS and kind == "mysql":
                    with _noting(problems, "Debezium"):
                        debezium = binlog_debezium.Anchored.of(fleet, server, kind, cursor)
                tell(f"{kind}: loading {changes:,} rows, {size:,} a transaction")
                _load(cursor, table, changes, size)
            for flow in flows:
                yield flow.measure(settings, changes, label)
            yield _library(fleet, server, kind, table, place, settings, label)
            if table != ROWS:
                continue
            for number in range(1, settings.runs + 1):
                yield binlog_snapshot.decoded(server, kind, f"{DATABASE}.{table}", changes)
                yield _Flow(fleet, server, kind, table, settings.runs + number).snapshot(
                    settings, changes
                )
                with closing(_connect(server)) as session, session.cursor() as cursor:
                    # what was written meanwhile
                    cursor.execute(f"DELETE FROM {DATABASE}.{table} WHERE id > {changes}")
            if kind == "mariadb":
                with _noting(problems, "mariadb-binlog"):
                    yield _raw(fleet, server, place, changes)
            if debezium is not None:
                with _noting(problems, "Debezium"):
                    for number in range(1, settings.runs + 1):
                        some = min(settings.publish_changes, changes)
                        yield debezium.publish(number, some, settings)
    if problems:
        raise problems[0]


@contextmanager
def _noting(problems: list[BenchError], name: str) -> Iterator[None]:
    """Keep what goes wrong with somebody else's program for later."""
    try:
        yield
    except BenchError as error:
        problems.append(type(error)(f"{name}: {error}"))


class _Flow:
    """One capture flow with a JetStream of its own, which knows where the backlog begins."""

    def __init__(
        self, fleet: Fleet, server: BinlogServer, kind: str, table: str, number: int
    ) -> None:
        self._fleet, self._server, self._kind, self._table = fleet, server, kind, table
        self._name = f"{kind}-{table}-{number}"

    def anchor(self, settings: Settings) -> None:
        """Run the flow until it has stored where it begins."""
        with (
            self._fleet.nats(self._name) as server,
            StreamObserver(server.url, _STREAM) as stream,
            self._start(server.url) as process,
        ):

            def stored() -> bool:
                process.check()
                # a marker when the flow claims the stream, then the checkpoint
                return stream.messages() >= 1 and stream.last_sequence() >= 2

            wait_until(stored, what="first checkpoint", timeout=settings.timeout_seconds)
            process.stop()

    def measure(self, settings: Settings, changes: int, label: str) -> dict[str, float]:
        """Capture the backlog; clock and CPU run from the first stored change to the last."""
        with (
            self._fleet.nats(self._name) as server,
            StreamObserver(server.url, _STREAM) as stream,
            self._start(server.url) as process,
        ):
            stretch = measure(
                process, lambda: stream.messages(_CHANGES), changes,
                what="change", timeout=settings.timeout_seconds,
            )  # fmt: skip
            process.stop()
            found = stream.messages(_CHANGES)
        if found != changes:
            raise FailedError(f"JetStream holds {found} changes of {changes}")
        return {
            f"{self._kind}_{label}_per_s": stretch.per_second,
            f"{self._kind}_{label}_cpu_us": stretch.cpu_us,
            f"{self._kind}_{label}_per_cpu_s": stretch.per_cpu_second,
            f"rss_{self._kind}_{label}_mb": stretch.peak_mb,
        }

    def snapshot(self, settings: Settings, rows: int) -> dict[str, float]:
        """Take a snapshot of the table, while rows are written."""
        with (
            self._fleet.nats(self._name) as server,
            StreamObserver(server.url, _STREAM) as stream,
            self._start(server.url, snapshot="initial") as process,
        ):
            log = self._fleet.folder / self._name / f"capture-{_SOURCE}.log"
            return binlog_snapshot.stored(
                process, stream, _CHANGES, self._server, self._kind,
                f"{DATABASE}.{self._table}", rows, settings, log.read_text,
            )  # fmt: skip

    def _start(self, nats_url: str, snapshot: str = "never") -> MeasuredProcess:
        source = {
            "type": self._kind,
            "dsn": "${BENCH_DSN}",
            "tables": [f"{DATABASE}.{self._table}"],
            "snapshot": snapshot,
        }
        tree = {"nats": {"url": nats_url}, "sources": {_SOURCE: source}, "sinks": {}}
        secrets = {"BENCH_DSN": self._server.dsn()}
        return start(f"capture/{_SOURCE}", self._fleet.folder / self._name, tree, secrets)


def _library(
    fleet: Fleet,
    server: BinlogServer,
    kind: str,
    table: str,
    place: _Place,
    settings: Settings,
    label: str,
) -> dict[str, float]:
    """`mysql-replication` by itself, which reads the rows and does nothing with them."""
    result = fleet.folder / f"library-{kind}-{table}.json"
    arguments = [server.port, place.file, place.position, table, settings.library_changes, result]
    with MeasuredProcess(
        "mysql-replication",
        [sys.executable, "-m", "bench.binlog_library", *map(str, arguments)],
        log=fleet.folder / f"library-{kind}-{table}.log",
        environment={"PYTHONPATH": str(_ROOT)},
    ) as process:
        process.finish(settings.timeout_seconds)
    figures = Result(**json.loads(result.read_text()))
    return {
        f"{kind}_library_{label}_per_s": figures.changes / figures.seconds,
        f"{kind}_library_{label}_cpu_us": figures.cpu / figures.changes * 1e6,
    }


def _raw(fleet: Fleet, server: BinlogServer, place: _Place, changes: int) -> dict[str, float]:
    """How fast the server itself hands the log out.

    Raises:
        UnavailableError: There is no `mariadb-binlog`.
    """
    program = shutil.which("mariadb-binlog")
    if program is None:
        raise UnavailableError("it is not installed (`apt-get install mariadb-client`)")
    folder = fleet.folder / "raw"
    folder.mkdir()
    command = [
        program,
        "--read-from-remote-server",
        "--raw",
        "--to-last-log",
        "--host=127.0.0.1",
        f"--port={server.port}",
        "--user=waxtap",
        f"--start-position={place.position}",
        place.file,
    ]
    began = time.monotonic()
    with MeasuredProcess("mariadb-binlog", command, log=folder / "log", folder=folder) as process:
        process.finish(300)
    return {"mariadb_raw_per_s": changes / (time.monotonic() - began)}


def _connect(server: BinlogServer) -> pymysql.Connection[Cursor]:
    return pymysql.connect(
        unix_socket=str(server.socket), user="waxtap", charset="utf8mb4", autocommit=True
    )


def _place(cursor: Cursor) -> _Place:
    try:
        cursor.execute("SHOW BINARY LOG STATUS")
    except pymysql.err.ProgrammingError:
        cursor.execute("SHOW MASTER STATUS")
    row = cursor.fetchone()
    if row is None:
        raise FailedError("the server names no log")
    return _Place(str(row[0]), int(row[1]))


def _load(cursor: Cursor, table: str, changes: int, transaction_rows: int) -> None:
    """Every value differs from row to row, texts and JSON in length as well."""
    colors = ("red", "green", "blue")
    for first in range(1, changes + 1, transaction_rows):
        values = ",".join(
            f"({id_},{id_ * 7919 % 100000},'item {id_} {'lorem ' * (id_ % 8)}',"
            f"'2025-01-{id_ % 28 + 1:02d} 12:00:{id_ % 60:02d}.{id_ % 1000000:06d}',"
            f"{id_ % 1000000 / 100:.2f},"
            f'\'{{"color": "{colors[id_ % 3]}", "tags": ["a{id_ % 17}", "b{id_ % 5}"],'
            f' "weight": {id_ % 977 / 10}}}\','
            f"{id_ % 3 == 0},UUID())"
            for id_ in range(first, min(first + transaction_rows, changes + 1))
        )
        cursor.execute(f"INSERT INTO {table} VALUES {values}")
