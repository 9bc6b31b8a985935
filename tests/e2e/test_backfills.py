"""Backfills over the API and the command line, by flows that are killed, while rows change."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import grpc
import psycopg
import pytest

from control.cli import app
from control.pb.cdc.v1 import cdc_pb2 as pb
from control.pb.cdc.v1 import cdc_pb2_grpc
from tests.e2e.control_service import ControlService
from tests.e2e.deployment import create_database
from tests.e2e.flows import await_capture
from tests.e2e.items import wait_for
from tests.servers.postgres import Database, drop

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.deployment import Deployment

pytestmark = [pytest.mark.servers, pytest.mark.slow]

_ROWS, _BUSY = 6_000, 500
_STATE = pb.Backfill
_CONFIGURATION = """
sources:
  shop: {type: postgres, dsn: "${SHOP_DSN}", tables: ["public.*"], snapshot: never}
  once: {type: postgres, dsn: "${SHOP_DSN}", tables: ["public.items"], snapshot: only}
sinks:
  warehouse: {type: postgres, dsn: "${WAREHOUSE_DSN}", topics: ["db.*"], from: [shop]}
  spare: {type: postgres, dsn: "${SPARE_DSN}", topics: ["db.*"], from: [shop]}
"""


class Load:
    """Changes the first rows of both tables, of those with an even id, until it is left."""

    def __init__(self, dsn: str) -> None:
        self._dsn, self._stop = dsn, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.transactions = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        chance = random.Random(7)
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._stop.wait(0.002):
                table = chance.choice(("items", "orders"))
                number = 2 * chance.randrange(1, _BUSY)
                if chance.random() < 0.3:
                    statement = f"DELETE FROM {table} WHERE id = {number}"
                else:
                    statement = (
                        f"INSERT INTO {table} VALUES ({number}, 'load {self.transactions}')"
                        " ON CONFLICT (id) DO UPDATE SET value = excluded.value"
                    )
                connection.execute(statement.encode())
                self.transactions += 1


def rows(dsn: str, table: str, where: str = "true") -> dict[int, str]:
    try:
        with psycopg.connect(dsn) as connection:
            query = f"SELECT id, value FROM {table} WHERE {where}"
            return {row[0]: row[1] for row in connection.execute(query.encode()).fetchall()}
    except psycopg.errors.UndefinedTable:
        return {}


def test_a_sink_is_filled_by_itself_though_the_flow_is_killed(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    create_database(deployment.target, "spare")
    spare = deployment.target.dsn("spare")
    try:
        _fill(deployment, spare, capsys)
    finally:
        drop(Database(deployment.target, "spare", spare))


def _fill(deployment: Deployment, spare: str, capsys: pytest.CaptureFixture[str]) -> None:
    deployment.run("CREATE TABLE orders (id bigint PRIMARY KEY, value text)")
    for table in ("items", "orders"):
        deployment.run(f"INSERT INTO {table} SELECT i, 'v' || i FROM generate_series(1, {_ROWS}) i")
    control = ControlService(deployment, "control", environment={"SPARE_DSN": spare})
    with control, control.channel() as channel:
        wait_for(control.ready, "the service")
        control.apply(_CONFIGURATION)
        await_capture(deployment)
        backfills = cdc_pb2_grpc.BackfillServiceStub(channel)
        flows = cdc_pb2_grpc.FlowServiceStub(channel)

        def look(name: str) -> pb.Backfill:
            full = f"sources/shop/backfills/{name}"
            return backfills.GetBackfill(pb.GetBackfillRequest(name=full))

        def kill() -> None:
            flow = flows.GetFlow(pb.GetFlowRequest(name="flows/capture/shop"))
            for pid in flow.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

            def again() -> bool:
                now = flows.GetFlow(pb.GetFlowRequest(name="flows/capture/shop"))
                return bool(now.pids) and not set(now.pids) & set(flow.pids)

            wait_for(again, "the flow that was killed")

        server = f"--server=127.0.0.1:{control.port}"
        with Load(deployment.source_dsn) as load:
            wait_for(lambda: load.transactions > 20, "load")
            words = ["--table=public.items", "--table=public.orders", "--where=id % 2 = 0"]
            more = ["--sink=spare", "--rate=1500", "--id=first", server]
            assert app.run(["backfill", "start", "shop", *words, *more]) == 0
            second = ["--table=public.items", "--where=id = 1", "--id=second", server]
            assert app.run(["backfill", "start", "shop", *second]) == 0
            for share in (1, 2):
                goal = share * _ROWS // 3
                wait_for(lambda goal=goal: look("first").rows > goal, "rows")  # type: ignore[misc]
                assert look("second").state == _STATE.STATE_QUEUED
                kill()
            wait_for(lambda: look("second").state == _STATE.STATE_DONE, "the second one", 60)
        done = look("first")
        assert (done.state, done.error) == (_STATE.STATE_DONE, "")
        # Each row once, whatever was killed: at most those that the load has added or taken away.
        assert abs(done.rows - _ROWS) <= 2 * _BUSY
        for table in ("items", "orders"):
            wait_for(
                lambda table=table: (
                    rows(spare, table, "id % 2 = 0")  # type: ignore[misc]
                    == rows(deployment.source_dsn, table, "id % 2 = 0")
                ),
                f"all rows of {table}",
            )
        # The other sink has what has changed, and what was for both.
        other = rows(deployment.target_dsn, "items") | rows(deployment.target_dsn, "orders")
        assert all(number == 1 or number < 2 * _BUSY for number in other)
        wait_for(lambda: 1 in rows(deployment.target_dsn, "items"), "the row for both")
        assert set(rows(spare, "items", "id % 2 = 1")) == {1}
        messages = cdc_pb2_grpc.MessageServiceStub(channel)
        wanted = pb.MessageFilter(source="shop", topic="db.orders", ops=["r"], key='{"id":4444}')
        assert _deliveries(messages, wanted) == [["spare"]]
        wanted.sink = "warehouse"
        assert _deliveries(messages, wanted) == []
        _held_up(look, server, kill)
        once = flows.GetFlow(pb.GetFlowRequest(name="flows/capture/once"))
        assert (once.state, once.restarts, once.last_error) == (pb.Flow.STATE_DONE, 0, "")
        told = backfills.GetBackfill(pb.GetBackfillRequest(name="sources/once/backfills/initial"))
        assert told.state == _STATE.STATE_DONE
        assert app.run(["get", "sources/once", server]) == 0
        assert "first_snapshot:\n  state: STATE_DONE\n" in capsys.readouterr().out
        assert told.rows >= _ROWS - _BUSY
        asked = pb.CreateBackfillRequest(
            parent="sources/once", backfill=pb.Backfill(tables=["public.*"])
        )
        with pytest.raises(grpc.RpcError, match="over once its snapshot is done"):
            backfills.CreateBackfill(asked)


def _deliveries(stub: cdc_pb2_grpc.MessageServiceStub, wanted: pb.MessageFilter) -> list[list[str]]:
    """The sinks of each message that matches, over all pages."""
    found: list[list[str]] = []
    request = pb.ListMessagesRequest(filter=wanted)
    while True:
        page = stub.ListMessages(request)
        found += [[each.sink for each in message.deliveries] for message in page.messages]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _held_up(look: Callable[[str], pb.Backfill], server: str, kill: Callable[[], None]) -> None:
    """Pause, resume, change and cancel one; and none of it is undone by a kill."""
    run = ["backfill", "start", "shop", "--table=public.items", server]
    assert app.run([*run, "--id=slow", "--rate=600"]) == 0
    began = time.monotonic()
    wait_for(lambda: look("slow").rows >= 1000, "rows of the slow one")
    assert time.monotonic() - began > 1.0
    assert look("slow").HasField("time_left")
    assert app.run(["backfill", "pause", "shop/slow", server]) == 0
    wait_for(lambda: look("slow").state == _STATE.STATE_PAUSED, "the pause")
    held = look("slow").rows
    kill()
    time.sleep(2.0)  # the silence itself is what is tested
    assert (look("slow").state, look("slow").rows) == (_STATE.STATE_PAUSED, held)
    assert app.run(["backfill", "update", "shop/slow", "--rate=0", server]) == 0
    assert app.run(["backfill", "resume", "shop/slow", server]) == 0
    assert app.run(["backfill", "get", "shop/slow", "--wait", server]) == 0
    assert look("slow").state == _STATE.STATE_DONE

    assert app.run([*run, "--id=gone", "--rate=100"]) == 0
    wait_for(lambda: look("gone").rows > 0, "rows of the one that is cancelled")
    assert app.run(["backfill", "cancel", "shop/gone", server]) == 0
    wait_for(lambda: look("gone").state == _STATE.STATE_CANCELLED, "the cancellation")
    assert app.run(["backfill", "resume", "shop/gone", server]) == 1
    assert app.run([*run, "--id=bad", "--where=no_such > 1", "--wait"]) == 1
    assert "no_such" in look("bad").error
    assert app.run(["backfill", "list", "shop", server]) == 0
