"""Two hundred sources and sinks at once: the service goes on to answer, and stays small."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml

from control.pb.cdc.v1 import cdc_pb2 as pb
from control.pb.cdc.v1 import cdc_pb2_grpc
from tests.e2e.control_service import ControlService
from tests.e2e.items import wait_for

if TYPE_CHECKING:
    from tests.e2e.deployment import Deployment

pytestmark = [pytest.mark.servers, pytest.mark.slow]

_EACH = 100
_MOST_SECONDS = 1.0
_MOST_BYTES = 300 * 1024 * 1024


def _memory(pid: int) -> int:
    """The largest resident size so far, in bytes (VmHWM)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmHWM"].split()[0]) * 1024


def test_two_hundred_flows_are_registered_at_once(deployment: Deployment) -> None:
    source = {"type": "postgres", "dsn": "${SHOP_DSN}", "snapshot": "never"}
    sink = {"type": "postgres", "dsn": "${WAREHOUSE_DSN}", "topics": ["db.*"]}
    tree = {
        "sources": {f"source-{i}": source for i in range(_EACH)},
        "sinks": {f"sink-{i}": {**sink, "from": [f"source-{i}"]} for i in range(_EACH)},
    }
    with ControlService(deployment, "crowded", "tests.e2e.crowded_service") as service:
        wait_for(service.ready, "the service")
        began = time.monotonic()
        service.apply(yaml.safe_dump(tree))
        slowest, applied = 0.0, time.monotonic() - began
        with service.channel() as channel:
            stub = cdc_pb2_grpc.FlowServiceStub(channel)
            running = 0
            while running < 2 * _EACH:
                assert time.monotonic() - began < 120
                asked = time.monotonic()
                flows = stub.ListFlows(pb.ListFlowsRequest(page_size=1000), timeout=20).flows
                slowest = max(slowest, time.monotonic() - asked)
                running = sum(flow.state == pb.Flow.STATE_RUNNING for flow in flows)
        took, size = time.monotonic() - began, _memory(service.pid)
        print(
            f"applied in {applied:.2f} s, all run after {took:.1f} s, "
            f"slowest answer {slowest:.3f} s, {size / 2**20:.0f} MiB"
        )
        assert slowest < _MOST_SECONDS
        assert size < _MOST_BYTES
        assert service.terminate(60) == 0
