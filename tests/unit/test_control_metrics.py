"""One port for the metrics of all flows: what processes tell, and what their servers say."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest, start_http_server

from connectors.errors import ConfigError
from connectors.jetstream.spec import NatsSpec
from control.metrics.exposition import FlowCollector, MetricsServer
from control.metrics.scraping import scrape
from control.metrics.sources import source_metrics
from control.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.metrics.exposition import Flows
    from control.metrics.sources import SourceOffset


@dataclass
class _Seen:
    slot: str
    slot_active: bool
    retained: int
    lag: int | None


@dataclass
class _Offset:
    source: str
    lag_time: int
    observation: _Seen | None


@dataclass
class _Flows:
    """A service that has not reached NATS; its flows run all the same."""

    running: dict[str, object]
    ready: bool = False
    service: str = "s"
    configured: tuple[int, dict[str, object]] = (0, {})
    board: object = field(default_factory=SimpleNamespace)


@pytest.fixture
def port() -> Iterator[int]:
    """Where a process serves one counter."""
    registry = CollectorRegistry()
    Counter("waxtap_captured_changes", "Changes", ("source",), registry=registry).labels("a").inc(3)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_sample_says_whose_it_is(port: int) -> None:
    dead = free_port()
    groups = {
        "capture/a": SimpleNamespace(run=SimpleNamespace(metrics=(port, dead))),
        "capture/b": SimpleNamespace(run=SimpleNamespace(metrics=(port,))),
    }
    flows = cast("Flows", _Flows(dict(groups)))
    registry = CollectorRegistry()
    registry.register(FlowCollector(flows, NatsSpec()))
    told = generate_latest(registry).decode()
    assert "waxtap_control_ready 0.0" in told
    for flow in groups:
        sample = f'waxtap_captured_changes_total{{flow="{flow}",process="0",source="a"}} 3.0'
        assert sample in told
    assert told.count("# TYPE waxtap_captured_changes_total counter") == 1
    assert 'waxtap_flow_up{flow="capture/a",process="0"} 1.0' in told
    assert 'waxtap_flow_up{flow="capture/a",process="1"} 0.0' in told


def test_a_process_that_is_not_there_tells_nothing() -> None:
    assert scrape(free_port()) is None


def test_an_address_in_use_is_named(port: int) -> None:
    with pytest.raises(ConfigError) as caught:
        MetricsServer(FlowCollector(cast("Flows", _Flows({})), NatsSpec()), "127.0.0.1", port)
    assert caught.value.where == f"127.0.0.1:{port}"


def test_servers_that_answer_have_gauges() -> None:
    offsets: list[SourceOffset] = [
        _Offset("shop", 2_500_000_000, _Seen("waxtap_shop", True, 4096, 128)),
        _Offset("crm", 0, _Seen("", False, 0, None)),
        _Offset("away", 0, None),
    ]
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in source_metrics(offsets)
        for sample in metric.samples
    }
    assert samples == {
        ("waxtap_slot_retained_bytes", "shop", "waxtap_shop"): 4096,
        ("waxtap_slot_active", "shop", "waxtap_shop"): 1,
        ("waxtap_source_lag_bytes", "shop"): 128,
        ("waxtap_source_lag_seconds", "shop"): 2.5,
    }
