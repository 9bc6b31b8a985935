"""The stored backlog through the delivery flow: until the target has committed the last change."""

from __future__ import annotations

import psycopg

from bench.backlog import TABLE, create_database
from bench.capture import Captured
from bench.errors import FailedError
from bench.fleet import Fleet
from bench.flow import STREAM, Setup
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.stretch import measure


def run(
    fleet: Fleet, captured: Captured, changes: int, settings: Settings, number: int
) -> dict[str, float]:
    """Deliver the whole stream once into an empty database.

    The clock and the CPU time run from the first row that is visible in the target to the last one.

    Args:
        fleet: The servers.
        captured: A NATS store that holds the backlog.
        changes: How many changes it holds.
        settings: Sizes.
        number: Of the run.

    Raises:
        FailedError: The flow ended, did not get through, or the target holds something else.
    """
    name = f"bench_deliver_{number}"
    create_database(fleet.target.dsn(), name)
    dsn = fleet.target.dsn(name)
    with (
        fleet.nats(captured.store) as server,
        StreamObserver(server.url, STREAM) as stream,
        psycopg.connect(dsn, autocommit=True) as target,
    ):
        stream.delete_consumers()
        setup = Setup(fleet.folder / name, server.url, fleet.source.dsn(), dsn, "unused")
        with setup.start("deliver/target") as process:
            stretch = measure(
                process, lambda: highest(target), changes,
                what="row", timeout=settings.timeout_seconds,
            )  # fmt: skip
            process.stop()
        row = target.execute(f"select count(*) from {TABLE}").fetchone()
        if row != (changes,):
            raise FailedError(f"the target holds {row} rows instead of {changes}")
    return {
        "deliver_pg_per_s": stretch.per_second,
        "deliver_cpu_us": stretch.cpu_us,
        "rss_deliver_mb": stretch.peak_mb,
    }


def highest(target: psycopg.Connection) -> int:
    """The highest id that is visible in the target's table; 0 while there is none.

    The backlog's ids ascend and are delivered in order, so this costs one look into an index.
    """
    table = target.execute("select to_regclass(%s)::text", (f"public.{TABLE}",)).fetchone()
    if table is None or table[0] is None:
        return 0
    row = target.execute(f"select max(id) from {TABLE}").fetchone()
    return 0 if row is None or row[0] is None else int(row[0])
