"""Runs the benchmarks one after the other, so that none disturbs another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bench import (
    backlog,
    binlog,
    capture,
    debezium,
    deliver,
    elasticsearch,
    explorer,
    ingest,
    latency,
    pipelines,
    recvlogical,
    rest,
    snapshot,
    webhook,
)
from bench.backlog import Backlog
from bench.capture import Captured
from bench.errors import BenchError, FailedError
from bench.fleet import Fleet
from bench.samples import Samples, add
from bench.settings import Settings

# By name, in the order in which they run.
BENCHMARKS = (
    "recvlogical",
    "pipelines",
    "capture",
    "snapshot",
    "deliver",
    "elasticsearch",
    "webhook",
    "ingest",
    "latency",
    "debezium-noop",
    "debezium-publish",
    "mysql",
    "mariadb",
    "rest",
    "explorer",
)
# They need no backlog in PostgreSQL.
_ON_THEIR_OWN = ("explorer", "ingest", "latency", "mysql", "mariadb", "rest", "snapshot")
_Run = Callable[[Fleet, Backlog, Settings, int], dict[str, float]]


class Suite:
    """The chosen benchmarks, and what they gave.

    Args:
        fleet: The running servers.
        settings: Sizes.
        chosen: Names out of `BENCHMARKS`.
        tell: Told what is going on.

    Attributes:
        samples: The figures so far.
        skipped: Why a benchmark gave none, by its name.
        failed: True once a benchmark that could run went wrong.
    """

    def __init__(
        self, fleet: Fleet, settings: Settings, chosen: Sequence[str], tell: Callable[[str], None]
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._chosen = chosen
        self._tell = tell
        self._captured: Captured | None = None
        self.samples: Samples = {}
        self.skipped: dict[str, str] = {}
        self.failed = False

    def run(self) -> None:
        """Run all of them; one that fails does not stop the others."""
        settings = self._settings
        filled: Backlog | None = None
        for name in BENCHMARKS:
            if name not in self._chosen:
                self.skipped[name] = "left out"
                continue
            if filled is None and name not in _ON_THEIR_OWN:
                self._tell(f"loading {settings.changes:,} rows")
                filled = backlog.load(
                    self._fleet.source.dsn(), settings.changes, settings.transaction_rows
                )
            try:
                for figures in self._figures(name, filled):
                    add(self.samples, figures)
            except BenchError as error:
                self.skipped[name] = str(error)
                self.failed |= isinstance(error, FailedError)
                self._tell(f"{name}: {error}")

    def _figures(self, name: str, filled: Backlog | None) -> Iterable[dict[str, float]]:
        if name == "latency":
            self._tell("latency")
            samples = latency.run(self._fleet, self._settings)
            yield from (
                dict(zip(samples, values, strict=True))
                for values in zip(*samples.values(), strict=True)
            )
            return
        if name in ("mysql", "mariadb"):
            for figures in binlog.run(self._fleet, self._settings, name, self._tell):
                shown = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items())
                self._tell(f"{name}: {shown}")
                yield figures
            return
        alone = {"ingest": ingest.run, "rest": rest.run, "snapshot": snapshot.run}
        if name in alone:
            for number in range(1, self._settings.runs + 1):
                figures = alone[name](self._fleet, self._settings, number)
                shown = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items())
                self._tell(f"{name} {number}/{self._settings.runs}: {shown}")
                yield figures
            return
        if name == "explorer":
            for figures in explorer.run(self._fleet, self._settings, self._tell):
                shown = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items())
                self._tell(f"explorer: {shown}")
                yield figures
            return
        assert filled is not None  # noqa: S101 - loaded for all that need it
        runs: dict[str, _Run] = {
            "recvlogical": recvlogical.run,
            "pipelines": pipelines.run,
            "capture": self._capture,
            "deliver": self._deliver,
            "elasticsearch": self._elasticsearch,
            "webhook": self._webhook,
            "debezium-noop": debezium.run_noop,
            "debezium-publish": debezium.run_publish,
        }
        for number in range(1, self._settings.runs + 1):
            figures = runs[name](self._fleet, filled, self._settings, number)
            shown = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items())
            self._tell(f"{name} {number}/{self._settings.runs}: {shown}")
            yield figures

    def _capture(
        self, fleet: Fleet, filled: Backlog, settings: Settings, number: int
    ) -> dict[str, float]:
        figures, self._captured = capture.run(fleet, filled, settings, number)
        return figures

    def _deliver(
        self, fleet: Fleet, filled: Backlog, settings: Settings, number: int
    ) -> dict[str, float]:
        return deliver.run(
            fleet, self._store(fleet, filled, settings), filled.changes, settings, number
        )

    def _elasticsearch(
        self, fleet: Fleet, filled: Backlog, settings: Settings, number: int
    ) -> dict[str, float]:
        return elasticsearch.run(fleet, self._store(fleet, filled, settings), settings, number)

    def _webhook(
        self, fleet: Fleet, filled: Backlog, settings: Settings, number: int
    ) -> dict[str, float]:
        return webhook.run(fleet, self._store(fleet, filled, settings), settings, number)

    def _store(self, fleet: Fleet, filled: Backlog, settings: Settings) -> Captured:
        if self._captured is None:
            _, self._captured = capture.run(fleet, filled, settings, 0)
        return self._captured
