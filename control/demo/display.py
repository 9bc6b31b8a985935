"""Shows how the demo stands: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from types import TracebackType

    from control.demo.progress import Standing

_LINE_SECONDS = 5.0
_PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Display:
    """The live table; a context manager."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._began = time.monotonic()
        self._line_due = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def show(self, phase: str, standing: Standing) -> None:
        """Show how things stand."""
        if self._live:
            self._live.update(self._table(phase, standing), refresh=True)
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + _LINE_SECONDS
            self.say(
                f"[{self._elapsed:4.0f} s] {phase}: rows in {standing.committed:,}, "
                f"rows out {standing.delivered:,}, lag {standing.committed - standing.delivered:,} "
                f"({standing.behind_seconds:.2f} s), latency {latencies(standing)}"
            )

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _table(self, phase: str, standing: Standing) -> Table:
        table = Table(title=f"PostgreSQL → JetStream → PostgreSQL: {phase}", title_justify="left")
        table.add_column("")
        table.add_column("changes", justify="right")
        table.add_column("a second / time", justify="right")
        elapsed = max(self._elapsed, 0.001)
        for name, count in (
            ("rows in (committed in the source)", standing.committed),
            ("rows out (visible in the target)", standing.delivered),
        ):
            table.add_row(name, f"{count:,}", f"{count / elapsed:,.0f}")
        lag = standing.committed - standing.delivered
        table.add_row("lag", f"{lag:,}", f"{standing.behind_seconds:.2f} s old")
        for name, share in _PERCENTILES.items():
            table.add_row(f"commit to visible in the target, {name}", "", _latency(standing, share))
        return table


def latencies(standing: Standing) -> str:
    """The percentiles in one line."""
    return ", ".join(f"{name} {_latency(standing, share)}" for name, share in _PERCENTILES.items())


def _latency(standing: Standing, share: float) -> str:
    seconds = standing.percentile(share)
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
