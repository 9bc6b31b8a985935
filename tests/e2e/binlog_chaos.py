"""The chaos of `chaos.py` against MySQL or MariaDB as the source.

    python -m tests.e2e.binlog_chaos --source mariadb --minutes 10 --seed 7

What was committed is told by `mysql-replication`, which reads the same log and shares no code.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from control.demo.mariadb_shop import compare
from control.servers.mariadb import MariadbServer
from control.servers.mysql import MysqlServer
from control.servers.nats import NatsServer
from control.servers.postgres import PostgresServer
from tests.e2e.binlog_witness import check_stream, witness
from tests.e2e.binlog_workload import SETUP, TABLES, Workload
from tests.e2e.chaos import Chaos, Report, check_no_crash_loop
from tests.e2e.deployment import Deployment
from tests.e2e.items import wait_for
from tests.e2e.verify_stream import read_stream
from tests.servers.binlog import FAST, connect, rows, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from control.servers.binlog_server import BinlogServer

MORE: Mapping[str, dict[str, object]] = {
    "topics": {"db.shop.items": {"partitions": 4}, "db.shop.scratch": {"partitions": 2}},
}


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
        wait_for(lambda: captured(source), "the capture flow's reading of the log", 120)
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
        await_agreement(ground)
        report.drained = time.monotonic() - drain
        check_no_crash_loop(chaos.capture)
        check_no_crash_loop(chaos.deliver)
    report.rows = compare(source, deployment.target_dsn, TABLES).rows
    report.changes = check_stream(read_stream(deployment.nats.url), witness(source))
    say(str(report))
    return report


def captured(server: BinlogServer) -> bool:
    """Whether somebody reads the log."""
    query = "SELECT 1 FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
    return bool(rows(server, query))


def _differences(ground: Ground) -> list[str]:
    try:
        return compare(ground.source, ground.deployment.target_dsn, TABLES).differences
    except psycopg.errors.UndefinedTable as error:
        return [str(error)]  # nothing of it has arrived yet


def await_agreement(ground: Ground, patience: float = 120.0) -> None:
    """Return once source and target are equal."""
    deadline = time.monotonic() + patience
    while found := _differences(ground):
        assert time.monotonic() < deadline, "source and target differ:\n" + "\n".join(found)
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


def deploy(
    stack: ExitStack,
    source: BinlogServer,
    folder: Path,
    reading: Mapping[str, object] | None = None,
) -> Deployment:
    """The servers behind a source; `reading` are further settings of it."""
    return Deployment(
        source=source,
        target=stack.enter_context(PostgresServer({"fsync": "off"})),
        nats=stack.enter_context(NatsServer()),
        folder=folder,
        tables=("shop.*",),
        more=MORE,
        sink={"schema": "public"},
        reading=reading or {},
    )


if __name__ == "__main__":
    main()
