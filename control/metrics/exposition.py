"""What a control service shows Prometheus: itself, its flows, and how far they are."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import structlog
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from connectors.errors import ConfigError, WaxtapError
from connectors.jetstream.api import ApiError
from connectors.jetstream.connection import connect
from connectors.jetstream.direct import DirectGets
from connectors.jetstream.stream import stream_name
from control.metrics.lags import lags
from control.metrics.scraping import scrape
from control.metrics.sources import source_metrics
from control.supervisor.records import State, Truth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from connectors.jetstream.spec import NatsSpec
    from control.metrics.lags import Lag
    from control.metrics.sources import AskSources, SourceOffset
    from control.supervisor.board import Board
    from control.supervisor.group import Group
    from control.supervisor.rendering import Rendered

log = structlog.get_logger()

_AT_ONCE = 8
# So long an answer of NATS is good for: several may scrape.
_LAGS_EVERY = 5.0
_SOURCES_EVERY = 10.0


class Flows(Protocol):
    """What is shown of the supervisor."""

    @property
    def ready(self) -> bool:
        """Whether flows can run."""
        ...

    @property
    def service(self) -> str:
        """The id of this service."""
        ...

    @property
    def board(self) -> Board:
        """What is known of all flows."""
        ...

    @property
    def configured(self) -> tuple[int, dict[str, Rendered]]:
        """The flows that the configuration wants."""
        ...

    @property
    def running(self) -> dict[str, Group]:
        """The processes of this service's flows."""
        ...


class FlowCollector(Collector):
    """Collects everything anew for each scrape. Usable from any thread.

    A flow's own metrics, its state and its lags are shown by the service that looks after it.

    Args:
        flows: The supervisor.
        nats: Where the streams are.
        sources: Asks the servers of sources how far they are; None: they are not asked.
    """

    def __init__(self, flows: Flows, nats: NatsSpec, sources: AskSources | None = None) -> None:
        self._flows, self._nats, self._ask = flows, nats, sources
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._asked: list[str] = []
        self._sources: Sequence[SourceOffset] = ()
        self._sources_at = float("-inf")
        self._lags: list[Lag] = []
        self._lags_at = float("-inf")

    @override
    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("waxtap_control_ready", "1 while flows can run")
        ready.add_metric([], self._flows.ready)
        yield ready
        if self._flows.ready:
            yield from self._states()
            yield from self._behind()
            yield from source_metrics(self._fresh_sources())
        yield from self._flows_own()

    def _own(self) -> list[str]:
        """The flows that this service looks after."""
        board = self._flows.board
        return [
            flow
            for flow in sorted(self._flows.configured[1])
            if (lease := board.lease(flow)) and lease.holder == self._flows.service
        ]

    def _states(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "waxtap_flow_state", "1 for the state that a flow is in", labels=["flow", "state"]
        )
        restarts = CounterMetricFamily(
            "waxtap_flow_restarts", "Starts after an end that nobody had asked for", labels=["flow"]
        )
        condition = GaugeMetricFamily(
            "waxtap_flow_condition",
            "1 while a condition holds, 0 while it does not; absent while that is unknown",
            labels=["flow", "condition"],
        )
        for flow in self._own():
            status = self._flows.board.status(flow)
            for one in State:
                state.add_metric([flow, one.value], one is status.state)
            restarts.add_metric([flow], status.restarts)
            for held in status.conditions:
                if held.status is not Truth.UNKNOWN:
                    condition.add_metric([flow, held.type], held.status is Truth.TRUE)
        yield from (state, restarts, condition)

    def _behind(self) -> Iterator[Metric]:
        sinks = {flow.removeprefix("deliver/") for flow in self._own()}
        labels = ["sink", "stream"]
        messages = GaugeMetricFamily(
            "waxtap_lag_messages", "Messages that are not known to be in the target", labels=labels
        )
        size = GaugeMetricFamily(
            "waxtap_lag_bytes", "Of these, by the average size of a message", labels=labels
        )
        seconds = GaugeMetricFamily(
            "waxtap_lag_seconds", "The age of the oldest of them", labels=labels
        )
        for lag in self._fresh_lags():
            if lag.sink in sinks:
                messages.add_metric([lag.sink, lag.stream], lag.messages)
                size.add_metric([lag.sink, lag.stream], lag.bytes)
                seconds.add_metric([lag.sink, lag.stream], lag.seconds)
        yield from (messages, size, seconds)

    def _fresh_lags(self) -> list[Lag]:
        with self._lock:
            if time.monotonic() - self._lags_at >= _LAGS_EVERY:
                captures = [f for f in self._flows.configured[1] if f.startswith("capture/")]
                streams = [stream_name(flow.removeprefix("capture/")) for flow in captures]
                try:
                    with connect(self._nats) as connection:
                        gets = DirectGets(connection)
                        try:
                            self._lags = lags(connection, gets, streams)
                        finally:
                            gets.close()
                except (WaxtapError, ApiError) as error:
                    # An old lag would look like a good one.
                    self._lags = []
                    log.warning("lags cannot be told", reason=str(error))
                self._lags_at = time.monotonic()
            return self._lags

    def _fresh_sources(self) -> Sequence[SourceOffset]:
        if self._ask is None:
            return ()
        with self._asking:
            own = [f.removeprefix("capture/") for f in self._own() if f.startswith("capture/")]
            if own != self._asked or time.monotonic() - self._sources_at >= _SOURCES_EVERY:
                try:
                    self._sources = self._ask(own)
                except (WaxtapError, ApiError) as error:
                    self._sources = ()
                    log.warning("sources' servers cannot be asked", reason=str(error))
                self._asked, self._sources_at = own, time.monotonic()
            return self._sources

    def _flows_own(self) -> Iterable[Metric]:
        """What the flows' processes count, each sample with the name of its flow."""
        ports = {
            (flow, number): port
            for flow, group in self._flows.running.items()
            for number, port in enumerate(group.run.metrics)
        }
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = dict(zip(ports, pool.map(scrape, ports.values()), strict=True))
        up = GaugeMetricFamily(
            "waxtap_flow_up", "1 if a process has told its metrics", labels=["flow", "process"]
        )
        merged: dict[str, Metric] = {}
        for (flow, number), metrics in answers.items():
            up.add_metric([flow, str(number)], metrics is not None)
            for metric in metrics or ():
                family = merged.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    labels = {**sample.labels, "flow": flow, "process": str(number)}
                    family.add_sample(sample.name, labels, sample.value)
        return [up, *merged.values()]


class MetricsServer:
    """Answers `GET /metrics`.

    Args:
        collector: What is shown.
        host: Where to listen.
        port: Likewise; 0 takes a free one.

    Attributes:
        port: Where it listens.

    Raises:
        ConfigError: Somebody else listens there, or it is no address of this machine.
    """

    def __init__(self, collector: Collector, host: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                "control.metrics_address",
                f"metrics cannot be served: {error.strerror}",
                where=f"{host}:{port}",
                cure="name another address with --metrics",
            ) from error
        self.port: int = self._server.server_port

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
