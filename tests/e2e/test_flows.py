"""The flows as processes: how they are started, stopped and starved."""

from __future__ import annotations

import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from control.servers.ports import free_port
from control.servers.spawn import spawn
from tests.e2e import verify, verify_stream
from tests.e2e.deployment import Deployment, create_database
from tests.e2e.flows import Layout, SupervisedFlow, await_capture, both
from tests.e2e.items import agree, insert, stop_cleanly, wait_for, witness_of
from tests.e2e.shop import Table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import PostgresFactory

pytestmark = pytest.mark.servers

# Longer than anything that is waited for by a deadline: an answer, or a sign of life (15 s each).
OUTAGE = 18.0


def await_progress(deployment: Deployment, flow: SupervisedFlow, end: int) -> None:
    """Wait until a flow has stored more, or everything is delivered."""

    def place() -> int:
        captures = flow.flow.startswith("capture")
        return deployment.stream_sequence() if captures else deployment.delivered_sequence()

    before = place()
    wait_for(lambda: place() > before or deployment.delivered_sequence() >= end, "progress")


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(Layout(), id="one worker"),
        pytest.param(Layout(workers=2), id="two workers"),
        pytest.param(Layout(processes=2), id="cluster of two processes"),
        pytest.param(Layout(recovery=False), id="no recovery folder"),
        pytest.param(Layout(workers=2, recovery=False), id="two workers, no recovery folder"),
    ],
)
def test_flows_run_in_every_layout_and_go_on_where_they_stopped(
    deployment: Deployment, layout: Layout
) -> None:
    witness = witness_of(deployment)
    for first in (1, 5001):
        capture = SupervisedFlow(deployment, "capture/shop", layout).start()
        deliver = SupervisedFlow(deployment, "deliver/warehouse", layout).start()
        try:
            await_capture(deployment)
            insert(deployment, first, first + 2999)
            for number in range(3000, 3020):
                insert(deployment, first + number, first + number)
            deployment.run("UPDATE items SET value = value || '!' WHERE id % 7 = 0")
            deployment.run("DELETE FROM items WHERE id % 11 = 0")
            agree(deployment)
        finally:
            stop_cleanly(capture, deliver)
        assert capture.recovery.exists() is layout.recovery
    stored = verify_stream.read_stream(deployment.nats.url)
    assert verify_stream.check_stream(stored, witness.read()) > 6000


def test_all_flows_run_in_one_dataflow(deployment: Deployment) -> None:
    every = SupervisedFlow(deployment, "").start()
    try:
        await_capture(deployment)
        insert(deployment, 1, 2500)
        agree(deployment)
    finally:
        stop_cleanly(every)


def test_an_empty_recovery_folder_is_initialised(deployment: Deployment) -> None:
    flow = SupervisedFlow(deployment, "capture/shop")
    flow.recovery.mkdir()
    flow.start()
    try:
        await_capture(deployment)
        insert(deployment, 1, 1)
        wait_for(lambda: deployment.stream_sequence() > 1, "the first change")
    finally:
        stop_cleanly(flow)
    assert list(flow.recovery.glob("*.sqlite3"))


def test_sigterm_in_full_flow_ends_soon_and_loses_nothing(deployment: Deployment) -> None:
    witness = witness_of(deployment)
    with SupervisedFlow(deployment, "capture/shop") as capture:
        await_capture(deployment)
        for first in range(1, 40_001, 8000):
            insert(deployment, first, first + 7999)
        with SupervisedFlow(deployment, "deliver/warehouse") as deliver:
            for flow in (capture, deliver, capture, deliver):
                await_progress(deployment, flow, 40_000)
                began = time.monotonic()
                assert flow.terminate() == [0], flow.last_words()
                assert time.monotonic() - began < 8
            agree(deployment)
            assert not capture.unasked
            assert not deliver.unasked
    stored = verify_stream.read_stream(deployment.nats.url)
    assert verify_stream.check_stream(stored, witness.read()) == 40_000


def test_sigterm_ends_a_process_that_waits_for_its_cluster(deployment: Deployment) -> None:
    alone = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    log = deployment.folder / "alone.log"
    process = spawn(
        [sys.executable, "-m", "bytewax.run", "dataflows.main", "-i", "1", "-a", alone],
        log=log,
        death_signal=signal.SIGKILL,
        environment=deployment.environment("capture/shop"),
        folder=deployment.folder,
    )
    try:
        wait_for(lambda: "retrying" in log.read_text(encoding="utf-8"), "the other process")
        process.terminate()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("server", ["nats", "target"])
def test_sigterm_ends_a_flow_whose_servers_are_down(deployment: Deployment, server: str) -> None:
    with both(deployment) as (capture, deliver):
        insert(deployment, 1, 100)
        agree(deployment)
        insert(deployment, 101, 3000)
        (deployment.nats if server == "nats" else deployment.target).kill()
        # the source lies on the target's server
        wait_for(lambda: "lost" in capture.last_words(), "word of the outage")
        for flow in (deliver, capture):
            began = time.monotonic()
            flow.stop()
            assert time.monotonic() - began < 15, flow.last_words()
    (deployment.nats if server == "nats" else deployment.target).start()
    with (
        SupervisedFlow(deployment, "capture/shop"),
        SupervisedFlow(deployment, "deliver/warehouse"),
    ):
        agree(deployment)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_outage_of_nats_stops_nothing_but_progress(deployment: Deployment) -> None:
    witness = witness_of(deployment)
    with both(deployment) as (capture, deliver):
        insert(deployment, 1, 1000)
        agree(deployment)
        pids = [flow.run.processes[0].pid for flow in (capture, deliver)]
        deployment.nats.kill()
        until = time.monotonic() + OUTAGE
        first = 1001
        while time.monotonic() < until:
            insert(deployment, first, first + 99)
            first += 100
            time.sleep(0.5)  # the shop's pace while the outage lasts, which is what is tested
        deployment.nats.start()
        agree(deployment)
        assert [flow.run.processes[0].pid for flow in (capture, deliver)] == pids
        assert not capture.unasked
        assert not deliver.unasked
    stored = verify_stream.read_stream(deployment.nats.url)
    assert verify_stream.check_stream(stored, witness.read()) == first - 1


def test_two_sources_flow_into_one_sink(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> None:
    server = postgres_factory()
    create_database(server, "mall")
    mall = {"type": "postgres", "dsn": server.dsn("mall"), "tables": ["public.*"]}
    mall["snapshot"] = "never"
    deployment = Deployment(
        server,
        server,
        nats_factory(),
        tmp_path,
        tables=("public.*",),
        more={"sources": {"mall": mall}},
    )
    deployment.run("CREATE TABLE items (id bigint PRIMARY KEY, value text)")
    goods = Table("public", "goods", ("id",))
    with psycopg.connect(server.dsn("mall"), autocommit=True) as connection:
        connection.execute("CREATE TABLE goods (id text PRIMARY KEY, price numeric)")
        with (
            SupervisedFlow(deployment, "capture/shop", Layout(workers=2)) as shop,
            SupervisedFlow(deployment, "capture/mall") as other,
            SupervisedFlow(deployment, "deliver/warehouse", Layout(workers=2)) as deliver,
        ):
            await_capture(deployment)
            await_capture(deployment, source="mall")
            for number in range(200):
                insert(deployment, number, number)
                connection.execute("INSERT INTO goods VALUES (%s, 1.50)", [f"good {number}"])
            agree(deployment)
            verify.await_agreement(server.dsn("mall"), deployment.target_dsn, [goods])
            for flow in (shop, other, deliver):
                assert not flow.unasked


def test_a_sink_that_starts_at_the_end_gets_what_comes_then(deployment: Deployment) -> None:
    late = {"type": "postgres", "dsn": "${WAREHOUSE_DSN}", "topics": ["db.*"], "start": "end"}
    batch = {"size": 7, "time": "20ms"}
    deployment.more = {"sinks": {"warehouse": late | {"batch": batch}}}
    deployment.write_configuration()
    with SupervisedFlow(deployment, "capture/shop"):
        await_capture(deployment)
        insert(deployment, 1, 100)
        wait_for(lambda: deployment.stream_sequence() > 100, "capture")
        for last in (200, 300):
            with SupervisedFlow(deployment, "deliver/warehouse"):
                wait_for(lambda: deployment.delivered_sequence() > 100, "the claim")
                insert(deployment, last - 99, last)
                wait_for(partial(_has, deployment, last), "the last row")
    assert _delivered(deployment) == list(range(101, 301))


def _has(deployment: Deployment, number: int) -> bool:
    return number in _delivered(deployment)


def _delivered(deployment: Deployment) -> list[int]:
    with psycopg.connect(deployment.target_dsn) as connection:
        try:
            rows = connection.execute("SELECT id FROM items ORDER BY id").fetchall()
        except psycopg.errors.UndefinedTable:
            return []
    return [row[0] for row in rows]
