"""Real flows and the real service send their spans to a collector of OTLP."""

from __future__ import annotations

import json
import os
import signal
import sys
from subprocess import Popen
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.servers.ports import free_port
from tests.integration.control_flows import until
from tests.integration.rest_api import ListApi
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

_TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector:
    """What a collector is told: of each span the flow, its name, and its attributes."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, request: Request) -> Reply:
        assert request.target == "/v1/traces"
        self.bodies.append(request.body)
        kind = {"content-type": "application/x-protobuf"}
        return Reply(200, kind, ExportTraceServiceResponse().SerializeToString())

    @property
    def spans(self) -> list[tuple[str, str, str, dict[str, str | int]]]:
        """Flow, name, trace and attributes of each."""
        found: list[tuple[str, str, str, dict[str, str | int]]] = []
        for body in self.bodies:
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = {one.key: one.value.string_value for one in group.resource.attributes}
                assert resource["service.name"] == "waxtap"
                for scope in group.scope_spans:
                    for span in scope.spans:
                        attributes: dict[str, str | int] = {
                            one.key: one.value.string_value or one.value.int_value
                            for one in span.attributes
                        }
                        flow = resource["waxtap.flow"]
                        found.append((flow, span.name, span.trace_id.hex(), attributes))
        return found


def _run(arguments: list[str], collector: Receiver, log: Path, **more: str) -> Popen[bytes]:
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        # Nothing is sent of itself in the time of a test: what comes, the end has sent.
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        **more,
    }
    with log.open("wb") as output:
        return Popen([sys.executable, "-m", *arguments], stderr=output, env=environment)


def test_a_flow_sends_its_spans_at_the_end(nats_factory: NatsFactory, tmp_path: Path) -> None:
    collector, api, log = Collector(), ListApi(), tmp_path / "log"
    api.put(1, 2, 3, secret="s3cret-row")
    taken: list[Request] = []

    def take(request: Request) -> Reply:
        taken.append(request)
        return Reply()

    with (
        Receiver(collector) as traces,
        Receiver(api) as items,
        Receiver(take) as hook,
    ):
        source = {
            "type": "rest", "url": f"http://127.0.0.1:{items.port}/items", "allow_http": True,
            "key": ["id"], "interval": "20ms",
        }  # fmt: skip
        sink = {
            "type": "webhook", "url": hook.url, "topics": ["*"], "allow_http": True,
            "allow_private": True,
        }  # fmt: skip
        configuration = tmp_path / "waxtap.yaml"
        nats = {"url": nats_factory().url}
        tree = {"nats": nats, "sources": {"items": source}, "sinks": {"hook": sink}}
        configuration.write_text(json.dumps(tree))
        flow = _run(
            ["bytewax.run", "dataflows.main"], traces, log, WAXTAP_CONFIG=str(configuration)
        )
        with flow:
            try:
                until(lambda: len(taken) >= 3 or flow.poll() is not None, "the changes")
                assert flow.poll() is None, log.read_text()
                assert not collector.bodies
                flow.send_signal(signal.SIGTERM)
                assert flow.wait(30) == 0, log.read_text()
            finally:
                flow.kill()
    published = [attributes for _, name, _, attributes in collector.spans if name == "publish"]
    assert sum(int(each["waxtap.changes"]) for each in published) == 3
    assert (published[0]["waxtap.source"], published[0]["waxtap.stream"]) == ("items", "CDC_items")
    assert int(published[0]["waxtap.bytes"]) > 100
    delivered = [attributes for _, name, _, attributes in collector.spans if name == "deliver"]
    assert sum(int(each["waxtap.changes"]) for each in delivered) == 3
    assert (delivered[0]["waxtap.sink"], delivered[0]["waxtap.stream"]) == ("hook", "CDC_items")
    assert {flow_name for flow_name, *_ in collector.spans} == {"all"}
    assert b"s3cret" not in b"".join(collector.bodies)


def _serves(channel: grpc.Channel) -> bool:
    """Whether the service has reached NATS; the question leaves no span."""
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    answer = health_pb2.HealthCheckResponse.FromString(check(b"", wait_for_ready=True, timeout=60))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_the_service_sends_its_spans_at_the_end(nats_factory: NatsFactory, tmp_path: Path) -> None:
    collector, log, port = Collector(), tmp_path / "log", free_port()
    with Receiver(collector) as traces:
        service = _run(
            [
                "control.server", "--nats-url", nats_factory().url,
                "--state", str(tmp_path / "state"), "--listen", f"127.0.0.1:{port}",
            ],
            traces,
            log,
        )  # fmt: skip
        with service:
            try:
                with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                    until(lambda: _serves(channel), "the service")
                    stub = cdc_pb2_grpc.FlowServiceStub(channel)
                    stub.ListFlows(
                        cdc_pb2.ListFlowsRequest(),
                        metadata=(("traceparent", f"00-{_TRACE}-b7ad6b7169203331-01"),),
                        timeout=60,
                    )
                assert not collector.bodies
                service.send_signal(signal.SIGTERM)
                assert service.wait(30) == 0, log.read_text()
            finally:
                service.kill()
    (call,) = collector.spans
    assert call[:3] == ("control", "cdc.v1.FlowService/ListFlows", _TRACE)
