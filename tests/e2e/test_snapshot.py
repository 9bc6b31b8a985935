"""A full database under load, whose flows are killed again and again while it is copied."""

from __future__ import annotations

import os
import random
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e import chaos, shop, verify, verify_stream
from tests.e2e.deployment import Deployment
from tests.e2e.flows import Layout, Run, SupervisedFlow, await_capture
from tests.e2e.witness import Witness
from tests.e2e.workload import Workload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import PostgresFactory

# Rows that the workload leaves alone, beside those that it writes.
PRELOAD = b"""
INSERT INTO customers (id, name, tags, profile, balance, avatar)
  SELECT 1000000 + i, 'n' || i, ARRAY['a', NULL], '{"a": null}', i / 7.0, '\\x00ff'
  FROM generate_series(1, 20000) i;
INSERT INTO customers (id, name) SELECT i, 'before' FROM generate_series(1, 400) i;
INSERT INTO orders (region, number, total)
  SELECT 9, -i, i FROM generate_series(1, 6000) i;
INSERT INTO documents
  SELECT md5(i::text)::uuid, 'd', repeat('body', 3000), '\\x', 0 FROM generate_series(1, 30) i;
INSERT INTO articles SELECT i, 'before', 'b', 0 FROM generate_series(1, 60) i;
INSERT INTO by_index SELECT i, 'before', 'v' FROM generate_series(1, 100) i;
INSERT INTO counters SELECT i, 0 FROM generate_series(1, 5) i;
INSERT INTO "Odd Schema"."\xc3\x9cn\xc3\xaf.c\xc3\xb6de %s > *"
  SELECT 'k' || i, 'f', '{1}', true, 'x' FROM generate_series(1, 1500) i;
"""


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(150)
def test_the_target_becomes_the_source_though_both_flows_are_killed_meanwhile(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> None:
    seed = int(os.environ.get("WAXTAP_CHAOS_SEED", secrets.randbelow(10**6)))
    print("seed", seed)
    chance = random.Random(seed)
    server = postgres_factory()
    deployment = Deployment(
        server,
        server,
        nats_factory(),
        tmp_path,
        reading={"snapshot": "initial"},
        more=chaos.PARTITIONED,
    )
    with psycopg.connect(deployment.source_dsn) as connection:
        connection.execute(shop.setup())
        connection.execute(PRELOAD)
        before = keys_of(connection)
    witness = Witness(
        deployment.source_dsn, {f"{table.schema}.{table.name}": table.key for table in shop.TABLES}
    )
    workload = Workload(deployment.source_dsn, seed, pause=0.05, large=False)
    capture = SupervisedFlow(deployment, "capture/shop")
    deliver = SupervisedFlow(deployment, "deliver/warehouse")
    flows = [capture, capture, capture, deliver, deliver]
    chance.shuffle(flows)
    with capture, deliver:
        await_capture(deployment)
        workload.start()
        try:
            for flow in flows:
                await_more(deployment, chance.randint(1500, 4000))
                flow.kill()
        finally:
            workload.stop()
        shop.write_last(deployment.source_dsn)
        verify.await_agreement(deployment.source_dsn, deployment.target_dsn)
        chaos.check_no_crash_loop(capture)
        chaos.check_no_crash_loop(deliver)
    logs = "".join(log.read_text("utf-8", "replace") for log in tmp_path.rglob("*.log"))
    assert "a snapshot goes on" in logs
    assert "snapshot done" in logs
    stored = list(verify_stream.read_stream(deployment.nats.url))
    positions = [each.position for each in stored]
    assert positions == sorted(set(positions))
    copied = Counter((s.event.table, s.event.key) for s in stored if s.event.op == "r")
    assert max(copied.values()) == 1
    changed = [each for each in stored if each.event.op != "r"]
    assert verify_stream.check_stream(changed, witness.read()) > 100
    touched = {(s.event.table, key) for s in changed for key in (s.event.key, s.event.old_key)}
    assert before - copied.keys() <= touched
    assert len(before & copied.keys()) > 20_000


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(90)
def test_a_flow_that_is_only_a_snapshot_ends_by_itself(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> None:
    server = postgres_factory()
    deployment = Deployment(
        server,
        server,
        nats_factory(),
        tmp_path,
        ("public.t",),
        reading={"snapshot": "only"},
    )
    deployment.run("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 3000) i")
    deployment.run("ALTER TABLE t ADD PRIMARY KEY (id)")
    # The second one finds that there is nothing left to do.
    for number in range(2):
        log = tmp_path / f"only-{number}.log"
        run = Run(deployment, "capture/shop", Layout(recovery=bool(number)), tmp_path / "r", log)
        assert run.wait(40) == [0], log.read_text()
    stored = [each.event.op for each in verify_stream.read_stream(deployment.nats.url)]
    assert stored == ["r"] * 3000


def keys_of(connection: psycopg.Connection[tuple[object, ...]]) -> set[tuple[str, object]]:
    """The keys of all rows, as the stream's verifier tells them."""
    found: set[tuple[str, object]] = set()
    for table in shop.TABLES:
        columns = psycopg.sql.SQL(", ").join(
            psycopg.sql.SQL("{}::text").format(psycopg.sql.Identifier(name))
            for name in sorted(table.key)
        )
        for row in connection.execute(
            psycopg.sql.SQL("SELECT {} FROM {}").format(columns, table.identifier)
        ).fetchall():
            key = tuple(zip(sorted(table.key), map(str, row), strict=True))
            found.add((f"{table.schema}.{table.name}", key))
    return found


def await_more(deployment: Deployment, messages: int) -> None:
    """Return once the stream has grown by so many messages."""
    goal = deployment.stream_sequence() + messages
    deadline = time.monotonic() + 30
    while deployment.stream_sequence() < goal:
        assert time.monotonic() < deadline, "the stream does not grow"
        time.sleep(0.01)
