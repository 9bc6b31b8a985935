"""How far sources' servers are ahead of what is stored, and what they keep for us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from prometheus_client import Metric

    AskSources: TypeAlias = Callable[[Sequence[str]], Sequence["SourceOffset"]]

_NS = 1_000_000_000


class Observation(Protocol):
    """What a source's server says."""

    @property
    def slot(self) -> str:
        """What keeps the log there for the source; empty: nothing does."""
        ...

    @property
    def slot_active(self) -> bool:
        """Whether somebody reads from it."""
        ...

    @property
    def retained(self) -> int:
        """Bytes of log that the server keeps for the slot."""
        ...

    @property
    def lag(self) -> int | None:
        """Bytes of log behind what is stored; None: that cannot be told."""
        ...


class SourceOffset(Protocol):
    """How far a source is."""

    @property
    def source(self) -> str:
        """Its name."""
        ...

    @property
    def lag_time(self) -> int:
        """For how long its server has been ahead, in nanoseconds."""
        ...

    @property
    def observation(self) -> Observation | None:
        """What its server says; None: it does not answer."""
        ...


def source_metrics(offsets: Iterable[SourceOffset]) -> Iterator[Metric]:
    """Gauges of these sources; a server that does not answer has none."""
    retained = GaugeMetricFamily(
        "waxtap_slot_retained_bytes",
        "Log that the source's server keeps for the slot",
        labels=["source", "slot"],
    )
    active = GaugeMetricFamily(
        "waxtap_slot_active", "1 while somebody reads from the slot", labels=["source", "slot"]
    )
    size = GaugeMetricFamily(
        "waxtap_source_lag_bytes", "Log behind what the stream holds", labels=["source"]
    )
    seconds = GaugeMetricFamily(
        "waxtap_source_lag_seconds",
        "How long ago the stream's last checkpoint was, while the server is further",
        labels=["source"],
    )
    for offset in offsets:
        seen = offset.observation
        if seen is None:
            continue
        if seen.slot:
            retained.add_metric([offset.source, seen.slot], seen.retained)
            active.add_metric([offset.source, seen.slot], seen.slot_active)
        if seen.lag is not None:
            size.add_metric([offset.source], seen.lag)
            seconds.add_metric([offset.source], offset.lag_time / _NS)
    yield from (retained, active, size, seconds)
