"""Full MySQL and MariaDB databases under load, whose flows are killed while they are copied."""

from __future__ import annotations

import gc
import os
import random
import secrets
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from control.servers.nats import find_nats_server
from control.servers.postgres_programs import find_programs
from tests.e2e.binlog_chaos import Ground, await_agreement, captured, deploy
from tests.e2e.binlog_witness import check_stream, witness
from tests.e2e.binlog_workload import SETUP, Workload
from tests.e2e.chaos import check_no_crash_loop
from tests.e2e.flows import SupervisedFlow
from tests.e2e.items import wait_for
from tests.e2e.test_snapshot import await_more
from tests.e2e.verify_stream import read_stream
from tests.servers.binlog import purge, run
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.binlog import Kind

ROWS = 12_000


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    obtain("postgres", find_programs, "postgresql")
    obtain("nats", find_nats_server)
    with ExitStack() as servers:
        yield servers
    # the sockets of connections that were lost are this test's, and not to be found by a later one
    gc.collect()


def fill(ground: Ground) -> None:
    """Rows that the workload leaves alone, and rows that it writes."""
    items = [f"({i}, 'before', 1.5, 'it''s ok')" for i in (*range(400), *range(2000, 2000 + ROWS))]
    orders = [f"({i % 9}, 'n{i // 9}', 2.5, '01:02:03.5', 'é')" for i in range(3000)]
    columns = {"items": "(id, name, price, state)", "orders": "", "counters": ""}
    made = {"items": items, "orders": orders, "counters": [f"({i}, 0)" for i in range(5)]}
    run(ground.source, *SETUP, database="shop")
    for table, rows in made.items():
        for start in range(0, len(rows), 4000):
            values = ", ".join(rows[start : start + 4000])
            run(ground.source, f"INSERT INTO shop.{table} {columns[table]} VALUES {values}")
    purge(ground.source)


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(200)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
# mysql-replication calls PyMySQL by a name that has gone out of use
@pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'passwd' is deprecated:DeprecationWarning")
def test_the_target_becomes_the_source_though_both_flows_are_killed_meanwhile(
    binlog_kind: Kind, stack: ExitStack, tmp_path: Path
) -> None:
    seed = int(os.environ.get("WAXTAP_CHAOS_SEED", secrets.randbelow(10**6)))
    print("seed", seed)
    chance = random.Random(seed)
    source = binlog_kind.factory()
    ground = Ground(deploy(stack, source, tmp_path, {"snapshot": "initial"}), source)
    deployment = ground.deployment
    fill(ground)
    workload = Workload(source, seed)
    capture = SupervisedFlow(deployment, "capture/shop")
    deliver = SupervisedFlow(deployment, "deliver/warehouse")
    with capture, deliver:
        wait_for(lambda: captured(source), "the capture flow's reading of the log", 60)
        workload.start()
        try:
            for flow in (capture, deliver, capture):
                await_more(deployment, chance.randint(1000, 4000))
                flow.kill()
        finally:
            workload.stop()
        run(source, "INSERT INTO shop.counters VALUES (-1, 1)")
        await_agreement(ground)
        check_no_crash_loop(capture)
        check_no_crash_loop(deliver)
    logs = "".join(log.read_text("utf-8", "replace") for log in tmp_path.rglob("*.log"))
    assert "a snapshot goes on" in logs
    assert "snapshot done" in logs
    stored = list(read_stream(deployment.nats.url))
    positions = [each.position for each in stored]
    assert positions == sorted(set(positions))
    copied = Counter((s.event.table, s.event.key) for s in stored if s.event.op == "r")
    assert max(copied.values()) == 1
    assert len(copied) > ROWS
    changed = (each for each in stored if each.event.op != "r")
    assert check_stream(changed, witness(source)) > 50
