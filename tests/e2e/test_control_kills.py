"""Control services and their flows are killed under load: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Self

import pytest

from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as pb
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.supervisor.board import Board
from control.supervisor.bucket import FlowBucket
from control.supervisor.records import State, Truth
from tests.e2e import verify_stream
from tests.e2e.control_service import ControlService
from tests.e2e.flows import await_capture
from tests.e2e.items import agree, insert, wait_for, witness_of
from tests.integration.control_flows import lives

if TYPE_CHECKING:
    from control.supervisor.records import FlowStatus
    from tests.e2e.deployment import Deployment

pytestmark = [pytest.mark.servers, pytest.mark.slow]

_BOTH = ("capture/shop", "deliver/warehouse")
_TAKEN_OVER_WITHIN = 15.0


class Load:
    """Rows that are inserted, changed and deleted in a thread until the end."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.transactions = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        first = 1
        while not self._stop.wait(0.02):
            self._deployment.run(
                "INSERT INTO items SELECT i, 'value ' || i FROM generate_series(%s::bigint, %s) i",
                first,
                first + 19,
            )
            self._deployment.run(
                "UPDATE items SET value = value || '!' WHERE id BETWEEN %s AND %s",
                first,
                first + 4,
            )
            self._deployment.run("DELETE FROM items WHERE id = %s", first + 7)
            first += 20
            self.transactions += 3


class Eye:
    """Sees what the services write about flows."""

    def __init__(self, url: str) -> None:
        self._bucket = FlowBucket(NatsSpec.model_validate({"url": url}), lambda: None)
        self._board = Board(self._bucket)

    def close(self) -> None:
        self._bucket.close()

    def status(self, flow: str) -> FlowStatus:
        self._bucket.refresh()
        return self._board.status(flow)

    def pids(self) -> dict[str, tuple[int, ...]]:
        return {flow: self.status(flow).pids for flow in _BOTH}

    def owned_by(self, flow: str, owner: str) -> bool:
        status = self.status(flow)
        return status.owner == owner and bool(status.pids)

    def running(self, owner: str = "") -> bool:
        """Whether both flows run and do their work, at this service."""
        return all(
            status.state is State.RUNNING
            and owner in ("", status.owner)
            and status.conditions
            and all(one.status is Truth.TRUE for one in status.conditions)
            for status in map(self.status, _BOTH)
        )


def test_kills_under_load(deployment: Deployment) -> None:
    witness = witness_of(deployment)
    with ExitStack() as stack:
        eye = Eye(deployment.nats.url)
        stack.callback(eye.close)
        first = stack.enter_context(ControlService(deployment, "first"))
        wait_for(first.ready, "the service")
        first.apply(deployment.configuration.read_text())
        await_capture(deployment)
        wait_for(eye.running, "the flows' start")
        load = stack.enter_context(Load(deployment))

        # A changed filter restarts its flow and no other.
        before = eye.pids()
        deployment.more = {"pipelines": {"all": {"filter": "op != 'nothing'"}}}
        deployment.write_configuration()
        first.apply(deployment.configuration.read_text())
        wait_for(lambda: eye.pids()["capture/shop"] not in ((), before["capture/shop"]), "restart")
        assert eye.pids()["deliver/warehouse"] == before["deliver/warehouse"]
        assert eye.status("capture/shop").restarts == 0

        # Killed flows come back.
        before = eye.pids()
        for (pid,) in before.values():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: all(eye.status(flow).restarts == 1 for flow in _BOTH), "restarts")

        # A killed service finds its flows again, which have not noticed.
        wait_for(eye.running, "the flows' restart")
        before = eye.pids()
        first.kill()
        written = deployment.stream_sequence()
        wait_for(lambda: deployment.stream_sequence() > written, "work without a service")
        first.start()
        wait_for(lambda: eye.status("capture/shop").restarts == 0, "adoption")
        wait_for(partial(eye.running, first.id), "adoption seen")
        assert eye.pids() == before

        # One that does not come back is replaced by another.
        second = stack.enter_context(ControlService(deployment, "second"))
        wait_for(second.ready, "the second service")
        first.kill()
        killed = time.monotonic()
        wait_for(
            lambda: all(eye.owned_by(flow, second.id) for flow in _BOTH),
            "take-over",
            _TAKEN_OVER_WITHIN,
        )
        took = time.monotonic() - killed
        assert not any(lives(pid) for (pid,) in before.values())
        wait_for(lambda: eye.running(second.id), "the flows' work", 40)
        print(f"taken over after {took:.1f} s, {load.transactions} transactions so far")

        load.end()
        agree(deployment)
        told = second.metrics()
        assert 'waxtap_flow_state{flow="capture/shop",state="running"} 1.0' in told
        assert 'waxtap_lag_messages{sink="warehouse",stream="CDC_shop"}' in told
        retained = 'waxtap_slot_retained_bytes{slot="waxtap_shop",source="shop"}'
        wait_for(lambda: retained in second.metrics(), "what the source's server says")
        assert 'waxtap_delivered_changes_total{flow="deliver/warehouse"' in told
        pids = [pid for flow in _BOTH for pid in eye.pids()[flow]]
        assert second.terminate() == 0
        assert not any(map(lives, pids))
    stored = verify_stream.read_stream(deployment.nats.url)
    assert verify_stream.check_stream(stored, witness.read()) > 500


def test_an_embedded_server_is_killed_with_its_service_and_comes_back(
    deployment: Deployment,
) -> None:
    deployment.sink = {"processes": 2}
    deployment.write_configuration()
    with ControlService(deployment, "only", embedded=True) as only:
        wait_for(only.ready, "the service")
        only.apply(deployment.configuration.read_text())
        await_capture(deployment)
        insert(deployment, 1, 100)
        agree(deployment)
        with only.channel() as channel:
            stub = cdc_pb2_grpc.FlowServiceStub(channel)
            before = _pids(stub)
        assert len(before) == 3
        assert all(lives(pid) for pid in before)
        only.kill()
        insert(deployment, 101, 200)
        only.start()
        wait_for(only.ready, "the service again")
        agree(deployment)
        with only.channel() as channel:
            assert _pids(cdc_pb2_grpc.FlowServiceStub(channel)) == before
        assert only.terminate() == 0
    assert not any(lives(pid) for pid in before)


def _pids(stub: cdc_pb2_grpc.FlowServiceStub) -> list[int]:
    return [pid for flow in stub.ListFlows(pb.ListFlowsRequest()).flows for pid in flow.pids]
