"""Streams that are deleted, purged or expire: recognised, named, and gone on from when told to."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import nats
import psycopg
import pytest

from tests.e2e.flows import Layout, Run, SupervisedFlow, await_capture, both
from tests.e2e.items import agree, insert, stop_cleanly, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from nats.js import JetStreamContext

    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers

STREAM = "CDC_shop"


def administrate(
    deployment: Deployment, act: Callable[[JetStreamContext], Coroutine[object, object, object]]
) -> None:
    """Do something to the streams behind the flows' backs."""

    async def run() -> None:
        client = await nats.connect(deployment.nats.url)
        try:
            await act(client.jetstream())
        finally:
            await client.close()

    asyncio.run(run())


def refusal(deployment: Deployment, flow: str) -> str:
    """Start a flow that must end by itself, with an error; return its log."""
    recovery = deployment.folder / f"recovery-{flow.replace('/', '-')}-0"
    run = Run(deployment, flow, Layout(), recovery, deployment.folder / "refusal.log")
    try:
        wait_for(lambda: run.ended, f"the end of {flow}")
        assert run.wait(5) != [0]
    finally:
        run.kill()
    return run.log.read_text(encoding="utf-8")


def accepted(log: str) -> str:
    """The token that the last error in a log tells the owner to accept."""
    found: list[str] = re.findall(r"accept: \[['\"]([^'\"]+)['\"]\]", log)
    assert found, log
    return found[-1]


def confirmed(deployment: Deployment) -> bool:
    """Whether the source's slot has let go of everything that was committed so far."""
    with psycopg.connect(deployment.source_dsn) as connection:
        row = connection.execute(
            "SELECT confirmed_flush_lsn >= pg_current_wal_lsn() FROM pg_replication_slots"
            " WHERE slot_name = 'waxtap_shop'"
        ).fetchone()
    return row == (True,)


def test_a_deleted_stream_is_made_again_and_the_sink_starts_anew_on_it(
    deployment: Deployment,
) -> None:
    with both(deployment) as (capture, deliver):
        insert(deployment, 1, 500)
        agree(deployment)
        administrate(deployment, lambda js: js.delete_stream(STREAM))
        insert(deployment, 501, 800)
        deployment.run("DELETE FROM items WHERE id < 100")
        agree(deployment)
        # it ends once with the reason, and goes on by itself when it is started again
        assert len(capture.unasked) <= 1, capture.unasked
        assert len(deliver.unasked) <= 1, deliver.unasked


def test_a_purged_stream_stops_capture_until_its_owner_accepts_it(deployment: Deployment) -> None:
    capture = SupervisedFlow(deployment, "capture/shop").start()
    try:
        await_capture(deployment)
        insert(deployment, 1, 10)
        wait_for(lambda: deployment.stream_sequence() > 10, "the first rows")
    finally:
        stop_cleanly(capture)
    administrate(deployment, lambda js: js.purge_stream(STREAM))
    insert(deployment, 11, 20)
    log = refusal(deployment, "capture/shop")
    assert "GapError" in log
    token = accepted(log)
    deployment.accept("sources", "shop", token)
    end = deployment.stream_sequence()
    with SupervisedFlow(deployment, "capture/shop") as capture:
        wait_for(lambda: deployment.stream_sequence() >= end + 10, "the rows after the purge")
        assert not capture.unasked


def test_what_expired_before_it_was_delivered_stops_the_sink_until_its_owner_accepts_it(
    deployment: Deployment,
) -> None:
    with SupervisedFlow(deployment, "capture/shop") as capture:
        await_capture(deployment)
        insert(deployment, 1, 100)
        deliver = SupervisedFlow(deployment, "deliver/warehouse").start()
        try:
            agree(deployment)
        finally:
            stop_cleanly(deliver)
        before = deployment.stream_sequence()
        insert(deployment, 101, 200)
        wait_for(lambda: deployment.stream_sequence() >= before + 100, "more rows")
        administrate(deployment, lambda js: js.purge_stream(STREAM, keep=20))
        log = refusal(deployment, "deliver/warehouse")
        assert "GapError" in log
        deployment.accept("sinks", "warehouse", accepted(log))
        deployment.run("DELETE FROM items WHERE id BETWEEN 101 AND 199")
        with SupervisedFlow(deployment, "deliver/warehouse") as deliver:
            agree(deployment)
            assert not deliver.unasked
        assert not capture.unasked


def test_a_stream_restored_from_a_backup_goes_on_once_its_owner_accepts_the_loss(
    deployment: Deployment, tmp_path: Path
) -> None:
    nats = deployment.nats

    def deliver(first: int, last: int) -> None:
        with SupervisedFlow(deployment, "capture/shop") as capture:
            await_capture(deployment)
            insert(deployment, first, last)
            with SupervisedFlow(deployment, "deliver/warehouse") as deliver:
                agree(deployment)
                stop_cleanly(deliver)
            wait_for(lambda: confirmed(deployment), "the confirmation of what is stored")
            stop_cleanly(capture)

    deliver(1, 100)
    nats.kill()
    shutil.copytree(nats.folder / "jetstream", tmp_path / "backup")
    nats.start()
    deliver(101, 300)
    nats.kill()
    shutil.rmtree(nats.folder / "jetstream")
    shutil.copytree(tmp_path / "backup", nats.folder / "jetstream")
    nats.start()

    sink = accepted(refusal(deployment, "deliver/warehouse"))
    for source in ("gap:", "truncated:"):
        token = accepted(refusal(deployment, "capture/shop"))
        assert token.startswith(source)
        deployment.accept("sources", "shop", token)
    with SupervisedFlow(deployment, "capture/shop") as capture:
        before = deployment.stream_sequence()
        insert(deployment, 301, 400)
        wait_for(lambda: deployment.stream_sequence() >= before + 100, "the rows after the loss")
        # The stream has grown since the sink was asked, which changes nothing for it.
        deployment.accept("sinks", "warehouse", sink)
        with SupervisedFlow(deployment, "deliver/warehouse") as goes_on:
            agree(deployment)
            assert not goes_on.unasked
        assert not capture.unasked
