"""Spans of flows, and that nothing of it is there unless it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from connectors.contracts.changes import Delivered
from connectors.contracts.sink import Batch, Claim, Share
from connectors.errors import ConfigError, FencedError
from control.servers.ports import free_port
from dataflows import telemetry, tracing
from dataflows.telemetry import Telemetry
from tests.unit.changes import change

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider.get_tracer("test"))
    yield exporter
    tracing.use(None)


def test_a_batch_for_the_stream_is_one_span(spans: InMemorySpanExporter) -> None:
    one, two = change(key='{"id":"k3y"}'), change()
    with tracing.publish("shop", "CDC_shop", [("s", one), ("s", two)]):
        assert not spans.get_finished_spans()
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == (
        "publish", SpanKind.PRODUCER, StatusCode.UNSET
    )  # fmt: skip
    assert dict(span.attributes or {}) == {
        "waxtap.source": "shop",
        "waxtap.stream": "CDC_shop",
        "waxtap.changes": 2,
        "waxtap.bytes": len(one.envelope) + len(two.envelope),
    }


def _batch(*sequences: int) -> Batch:
    share = Share("warehouse", "CDC_shop", "2026-01-01T00:00:00Z", ("CDC.shop.>",))
    some = change()
    changes = [
        Delivered(number, "CDC.shop.db.users.0", "1", some.key, some.table, "5", False, b"{}")
        for number in sequences
    ]
    return Batch(Claim(share, 1, {}), changes, 9)


def test_a_batch_that_a_sink_takes_is_one_span(spans: InMemorySpanExporter) -> None:
    with tracing.deliver("warehouse", _batch(4, 6, 7)):
        pass
    with tracing.deliver("warehouse", _batch()):
        pass
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("deliver", SpanKind.CONSUMER)
    assert dict(span.attributes or {}) == {
        "waxtap.sink": "warehouse",
        "waxtap.stream": "CDC_shop",
        "waxtap.changes": 3,
        "waxtap.first_sequence": 4,
        "waxtap.last_sequence": 7,
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FencedError("stream.fenced", "s3cret row"), "stream.fenced"),
        (KeyError("s3cret"), "KeyError"),
    ],
)
def test_a_span_tells_what_kind_of_error_it_met_and_not_its_text(
    spans: InMemorySpanExporter, error: Exception, told: str
) -> None:
    with pytest.raises(type(error)), tracing.publish("shop", "CDC_shop", [("s", change())]):
        raise error
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == told
    assert "s3cret" not in span.to_json()


_FLOW = """
import sys
from connectors.contracts.source import Checkpoint
from dataflows import main, tracing
from dataflows.spec import parse
tracing.configure({environment})
config = parse({{
    "nats": {{"url": "nats://127.0.0.1:4222"}},
    "sources": {{"shop": {{"type": "postgres", "dsn": "host=h dbname=d"}}}},
    "sinks": {{"out": {{"type": "postgres", "dsn": "host=h dbname=d", "topics": ["*"]}}}},
}}, {{}})
main.build(config, "")
with tracing.publish("shop", "CDC_shop", []):
    pass
print(sum(name.partition(".")[0] == "opentelemetry" for name in sys.modules))
"""


@pytest.mark.parametrize(
    ("environment", "imports"),
    [
        ({}, False),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER": "always_off"}, True),
    ],
)
def test_a_flow_imports_nothing_of_opentelemetry_unless_a_collector_is_named(
    environment: dict[str, str], imports: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FLOW.format(environment=environment)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    assert (int(done.stdout) > 0) is imports


@pytest.mark.parametrize("module", ["dataflows.main", "control.server.serving"])
def test_neither_flow_nor_service_imports_it_at_the_start(module: str) -> None:
    code = f"import sys, {module}; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_extra_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError) as caught:
        telemetry.start({ENDPOINT: "http://127.0.0.1:1"}, "capture/shop")
    error = caught.value
    assert (error.code, error.where) == ("traces.missing_extra", ENDPOINT)
    assert "waxtap[traces]" in error.cure


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "zipkin")],
)
def test_what_is_not_supported_is_refused(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        telemetry.start({ENDPOINT: "http://127.0.0.1:1", variable: value}, "capture/shop")
    assert (caught.value.code, caught.value.where) == ("traces.unsupported", variable)


def test_an_endpoint_that_is_no_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        telemetry.start({ENDPOINT: "collector:4318/s3cret"}, "capture/shop")
    assert (caught.value.code, caught.value.where) == ("traces.endpoint", ENDPOINT)
    assert "s3cret" not in str(caught.value)


_AWAY = """
import os, sys
from dataflows import reporting, tracing
reporting.configure(os.environ)
tracing.configure(os.environ)
for _ in range(3):
    with tracing.publish("shop", "CDC_shop", []):
        pass
"""


def test_a_collector_that_is_away_is_one_line_in_the_log_and_nothing_else() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}/s3cret/v1/traces?key=s3cret"
    environment = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint,
        "WAXTAP_LOG": "json",
        "WAXTAP_FLOW": "capture/shop",
    }
    done = subprocess.run(
        [sys.executable, "-c", _AWAY],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
        timeout=60,
    )
    (line,) = done.stderr.splitlines()
    assert "s3cret" not in line
    told = json.loads(line)
    assert (told["event"], told["flow"]) == ("trouble with traces", "capture/shop")
    assert "refused" in told["reason"]


class _Stuck(SpanExporter):
    """A collector that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.free.wait(30)
        return SpanExportResult.FAILURE


def test_what_is_left_is_sent_at_the_end() -> None:
    exporter = InMemorySpanExporter()
    running = Telemetry(exporter, "capture/shop")
    running.tracer.start_span("one").end()
    running.close()
    (span,) = exporter.get_finished_spans()
    resource = span.resource.attributes
    assert (resource["service.name"], resource["waxtap.flow"]) == ("waxtap", "capture/shop")
    assert str(resource["service.instance.id"]).startswith("capture/shop@")


def test_the_environment_may_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "cdc")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    exporter = InMemorySpanExporter()
    running = Telemetry(exporter, "capture/shop")
    running.tracer.start_span("one").end()
    running.close()
    resource = exporter.get_finished_spans()[0].resource.attributes
    assert resource["service.name"] == "cdc"
    assert resource["deployment.environment.name"] == "test"


def test_a_collector_that_hangs_holds_up_neither_spans_nor_the_end() -> None:
    exporter = _Stuck()
    running = Telemetry(exporter, "capture/shop")
    try:
        began = time.monotonic()
        for _ in range(5000):
            running.tracer.start_span("one").end()
        running.close()
        assert time.monotonic() - began < 5
    finally:
        exporter.free.set()
