"""The chaos of `chaos.py` against MySQL or MariaDB as the source.

    python -m tests.e2e.binlog_chaos --source mariadb --minutes 10 --seed 7

What was committed is told by `mysql-replication`, which reads the same log and shares no code.
"""

from __future__ import annotations

import argparse
import random
import re
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.event import GtidEvent, MariadbGtidEvent, QueryEvent
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from control.demo.mariadb_shop import compare
from control.demo.shop import Table
from control.servers.mariadb import MariadbServer
from control.servers.mysql import MysqlServer
from control.servers.nats import NatsServer
from control.servers.postgres import PostgresServer
from tests.e2e.chaos import Chaos, Report, check_no_crash_loop
from tests.e2e.deployment import Deployment
from tests.e2e.verify_stream import read_stream
from tests.servers.binlog import FAST, connect, rows, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pymysql.cursors import Cursor

    from control.servers.binlog_server import BinlogServer
    from tests.e2e.verify_stream import Stored

TABLES = (
    Table("items", ("id",)),
    Table("orders", ("region", "number")),
    Table("counters", ("id",)),
    Table("scratch", ("id",)),
)
SETUP = (
    "CREATE TABLE items (id bigint unsigned PRIMARY KEY, name varchar(50), body longtext,"
    " price decimal(12,2), seen datetime(6), avatar blob, state enum('new', 'it''s ok', 'é'))",
    "CREATE TABLE orders (region int, number varchar(20), total decimal(20,4), took time(3),"
    " note text CHARACTER SET latin1, PRIMARY KEY (region, number))",
    "CREATE TABLE counters (id int PRIMARY KEY, hits bigint NOT NULL)",
    "CREATE TABLE scratch (id bigint AUTO_INCREMENT PRIMARY KEY, value text)",
)
MORE: Mapping[str, dict[str, object]] = {
    "topics": {"db.shop.items": {"partitions": 4}, "db.shop.scratch": {"partitions": 2}},
}
_Key = tuple[tuple[str, str], ...] | None
_DEADLOCK, _LOCK_WAIT, _DUPLICATE = 1213, 1205, 1062


class Workload:
    """Writers in threads of their own, until they are stopped; they outlive the server's kills.

    Args:
        server: Where the database `shop` is.
        seed: Of the transactions.
    """

    def __init__(self, server: BinlogServer, seed: int) -> None:
        self.transactions = 0
        self._server = server
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=[random.Random(f"{seed}/{number}")])
            for number in range(3)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the writers and wait for them. Raises what a writer could not cope with."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _run(self, random_: random.Random) -> None:
        try:
            while not self._stop.is_set():
                try:
                    with connect(self._server, "shop") as connection:
                        connection.autocommit(False)
                        with connection.cursor() as cursor:
                            self._write(cursor, random_)
                except pymysql.Error as error:
                    number = error.args[0] if error.args else 0
                    lost = isinstance(error, pymysql.OperationalError | pymysql.InterfaceError)
                    if number not in (_DEADLOCK, _LOCK_WAIT, _DUPLICATE) and not lost:
                        raise
                    self._stop.wait(0.1)
        except BaseException as error:  # noqa: BLE001 - raised again by stop()
            self._failures.append(error)
            self._stop.set()

    def _write(self, cursor: Cursor, random_: random.Random) -> None:
        kinds: list[tuple[float, Callable[[Cursor, random.Random], None]]] = [
            (40, _mixed),
            (8, _move_keys),
            (8, _savepoints),
            (6, _hot_rows),
            (3, _large_row),
            (3, _many_rows),
            (1, _truncate),
        ]
        while not self._stop.is_set():
            (_, kind) = random_.choices(kinds, [weight for weight, _ in kinds])[0]
            kind(cursor, random_)
            cursor.execute("ROLLBACK" if random_.random() < 0.05 else "COMMIT")
            self.transactions += 1
            self._stop.wait(random_.expovariate(10))


def _mixed(cursor: Cursor, random_: random.Random) -> None:
    for _ in range(random_.randint(1, 12)):
        number = random_.randrange(400)
        if random_.random() < 0.2:
            cursor.execute("DELETE FROM items WHERE id = %s", (number,))
            continue
        cursor.execute(
            "INSERT INTO items VALUES (%s, %s, %s, %s, NOW(6), %s, %s) ON DUPLICATE KEY UPDATE"
            " name = VALUES(name), price = price + 1, seen = NOW(6), state = VALUES(state)",
            (
                number,
                random_.choice(["x", 'é " \\ \n', "漢😀", None]),
                "y" * random_.randrange(300),
                f"{random_.randrange(10**9) / 100:.2f}",
                random_.randbytes(random_.randrange(40)),
                random_.choice(["new", "it's ok", "é"]),
            ),
        )
        cursor.execute(
            "INSERT INTO orders VALUES (%s, %s, %s, %s, %s)"
            " ON DUPLICATE KEY UPDATE total = total + 1",
            (random_.randrange(9), f"n{random_.randrange(90)}", "1.5", "-01:02:03.5", "é€"),
        )


def _move_keys(cursor: Cursor, random_: random.Random) -> None:
    new, old = random_.randrange(10**6, 10**9), random_.randrange(400)
    cursor.execute("UPDATE items SET id = %s WHERE id = %s", (new, old))
    cursor.execute("UPDATE orders SET number = %s WHERE region = %s LIMIT 2", (f"m{new}", new % 9))


def _savepoints(cursor: Cursor, random_: random.Random) -> None:
    cursor.execute("INSERT INTO scratch (value) VALUES ('kept')")
    cursor.execute("SAVEPOINT s")
    cursor.execute("INSERT INTO scratch (value) VALUES ('undone'), ('undone')")
    cursor.execute("ROLLBACK TO SAVEPOINT s")
    cursor.execute("INSERT INTO scratch (value) VALUES (%s)", (f"v{random_.randrange(9)}",))


def _hot_rows(cursor: Cursor, random_: random.Random) -> None:
    for number in sorted(random_.sample(range(5), 3)):
        cursor.execute(
            "INSERT INTO counters VALUES (%s, 1) ON DUPLICATE KEY UPDATE hits = hits + 1", (number,)
        )


def _large_row(cursor: Cursor, random_: random.Random) -> None:
    text = random_.randbytes(random_.randrange(600_000)).hex()
    cursor.execute(
        "INSERT INTO items (id, body) VALUES (%s, %s) ON DUPLICATE KEY UPDATE body = VALUES(body)",
        (random_.randrange(400), text),
    )


def _many_rows(cursor: Cursor, random_: random.Random) -> None:
    values = ", ".join(f"('bulk {number}')" for number in range(random_.randint(900, 3000)))
    cursor.execute(f"INSERT INTO scratch (value) VALUES {values}")


def _truncate(cursor: Cursor, _: random.Random) -> None:
    cursor.execute("TRUNCATE scratch")


class Committed(NamedTuple):
    """A change as the log tells it.

    Attributes:
        gtid: Its transaction.
        op: As in `Change`.
        table: `database.table`.
        key: The key's columns as text, sorted by name.
        old_key: The key before an update that changed it.
    """

    gtid: str
    op: str
    table: str
    key: _Key
    old_key: _Key


def witness(server: BinlogServer) -> Iterator[Committed]:
    """Every committed change of the database `shop` since the server was made, in order."""
    (first, *_), *_ = rows(server, "SHOW BINARY LOGS")
    reader = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": server.port, "user": "waxtap"},
        server_id=99,
        log_file=str(first),
        log_pos=4,
        resume_stream=True,
        only_schemas=["shop"],
        enable_logging=False,
    )
    gtid = ""
    with closing(reader):
        for event in reader:
            if isinstance(event, GtidEvent | MariadbGtidEvent):
                gtid = str(event.gtid)
            elif isinstance(event, QueryEvent):
                text = event.query if isinstance(event.query, str) else event.query.decode()
                if re.match(r"\s*truncate", text, re.IGNORECASE):
                    yield Committed(gtid, "t", "shop.scratch", None, None)
            elif isinstance(event, WriteRowsEvent | UpdateRowsEvent | DeleteRowsEvent):
                yield from _changes(gtid, event)


def _changes(
    gtid: str, event: WriteRowsEvent | UpdateRowsEvent | DeleteRowsEvent
) -> Iterator[Committed]:
    names = next(table.key for table in TABLES if table.name == event.table)
    op = {WriteRowsEvent: "c", UpdateRowsEvent: "u", DeleteRowsEvent: "d"}[type(event)]

    def key(values: dict[str, object]) -> _Key:
        return tuple(sorted((name, str(values[name])) for name in names))

    for row in event.rows:
        new = key(row["after_values"] if op == "u" else row["values"])
        old = key(row["before_values"]) if op == "u" else new
        yield Committed(gtid, op, f"shop.{event.table}", new, old if old != new else None)


def check_stream(stored: Iterator[Stored], committed: Iterator[Committed]) -> int:
    """Every committed change lies in the stream exactly once and in order; returns how many.

    Raises:
        AssertionError: A change is missing, surplus or out of order; names the first one.
    """
    previous: Stored | None = None
    number = 0
    for number, (want, got) in enumerate(zip_longest(committed, stored), start=1):
        where = f"change {number}"
        assert got is not None, f"{where}: {want} is missing at the end of the stream"
        assert want is not None, f"{where}: {got} was never committed"
        if previous is not None:
            assert got.position > previous.position, f"{where}: {got} after {previous}"
            same = got.transaction == previous.transaction
            assert same is not previous.last, f"{where}: mark of the last change: {previous}, {got}"
        previous = got
        assert got.transaction == want.gtid, f"{where}: expected {want}, found {got}"
        assert got.event.key == want.key, f"{where}: expected {want}, found {got}"
        if got.event.op:  # a change in the object store tells only its headers
            found = (got.event.op, got.event.table, got.event.old_key)
            assert found == (want.op, want.table, want.old_key), f"{where}: {want}, {got}"
    return number


@dataclass(frozen=True, slots=True)
class Ground:
    """What a run needs.

    Attributes:
        deployment: The servers, databases still empty.
        source: The deployment's source.
    """

    deployment: Deployment
    source: BinlogServer


def run_chaos(
    ground: Ground, seed: int, enough: Callable[[Report], bool], say: Callable[[str], None]
) -> Report:
    """Write and break until `enough`, then drain and compare everything.

    Raises:
        AssertionError: Something was lost, repeated or reordered, or needed a human.
    """
    say(f"seed {seed}")
    deployment, source = ground.deployment, ground.source
    with connect(source, "shop") as connection, connection.cursor() as cursor:
        for statement in SETUP:
            cursor.execute(statement)
    chaos = Chaos(deployment, seed, say)
    report = chaos.report
    workload = Workload(source, seed)
    began = time.monotonic()
    with chaos.capture, chaos.deliver:
        _await(lambda: _captured(source), "the capture flow does not read the log")
        workload.start()
        try:
            while not enough(report):
                chaos.act()
        finally:
            workload.stop()
        report.seconds = time.monotonic() - began
        report.transactions = workload.transactions
        run(source, "INSERT INTO shop.counters VALUES (-1, 1)")
        chaos.finish()
        say(f"drains; so far {report}")
        drain = time.monotonic()
        _await_agreement(ground)
        report.drained = time.monotonic() - drain
        check_no_crash_loop(chaos.capture)
        check_no_crash_loop(chaos.deliver)
    report.rows = compare(source, deployment.target_dsn, TABLES).rows
    report.changes = check_stream(read_stream(deployment.nats.url), witness(source))
    say(str(report))
    return report


def _captured(server: BinlogServer) -> bool:
    query = "SELECT 1 FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
    return bool(rows(server, query))


def _differences(ground: Ground) -> list[str]:
    try:
        return compare(ground.source, ground.deployment.target_dsn, TABLES).differences
    except psycopg.errors.UndefinedTable as error:
        return [str(error)]  # nothing of it has arrived yet


def _await_agreement(ground: Ground, patience: float = 120.0) -> None:
    deadline = time.monotonic() + patience
    while found := _differences(ground):
        assert time.monotonic() < deadline, "source and target differ:\n" + "\n".join(found)
        time.sleep(0.3)


def _await(condition: Callable[[], bool], what: str, patience: float = 120.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what} after {patience:.0f} s"
        time.sleep(0.3)


def main() -> None:
    """Run for some minutes on servers of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.binlog_chaos", description=__doc__)
    parser.add_argument("--source", choices=("mysql", "mariadb"), default="mariadb")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    chosen = parser.parse_args()
    seed = secrets.randbelow(10**6) if chosen.seed is None else chosen.seed
    folder = Path(tempfile.mkdtemp(prefix="waxtap-chaos-"))
    print(f"logs in {folder}", flush=True)
    deadline = time.monotonic() + chosen.minutes * 60
    with ExitStack() as stack:
        make = MysqlServer if chosen.source == "mysql" else MariadbServer
        source = stack.enter_context(make(FAST))
        ground = Ground(deploy(stack, source, folder), source)
        run_chaos(
            ground,
            seed,
            enough=lambda _: time.monotonic() > deadline,
            say=lambda line: print(line, flush=True),
        )
    shutil.rmtree(folder)


def deploy(stack: ExitStack, source: BinlogServer, folder: Path) -> Deployment:
    """The servers behind a source."""
    return Deployment(
        source=source,
        target=stack.enter_context(PostgresServer({"fsync": "off"})),
        nats=stack.enter_context(NatsServer()),
        folder=folder,
        tables=("shop.*",),
        more=MORE,
        sink={"schema": "public"},
    )


if __name__ == "__main__":
    main()
