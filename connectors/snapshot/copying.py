"""What the owner is told about a snapshot or a backfill that is under way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import structlog

from connectors.contracts.backfills import INITIAL
from connectors.metrics import (
    snapshot_estimated,
    snapshot_rows,
    snapshot_running,
    snapshot_seconds_left,
)

if TYPE_CHECKING:
    from connectors.snapshot.progress import Progress

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_TELL_EVERY_S = 10.0


class Copied(NamedTuple):
    """How far it is.

    Attributes:
        rows: How many were read so far.
        estimated: How many there are, by the server's statistics; 0: that is not known.
        table: The table that was read last.
        rate: Rows a second since it went on.
        seconds_left: By these; None: that cannot be told.
    """

    rows: int
    estimated: int
    table: str
    rate: float
    seconds_left: float | None


class Copying:
    """Tells of progress in the log and in metrics.

    Args:
        source: The source's name.
        progress: From where it goes on.
        job: What it is for: `initial`, or a backfill's id.
    """

    def __init__(self, source: str, progress: Progress, job: str = INITIAL) -> None:
        self._told_of: dict[str, str] = {"source": source}
        self._what = "snapshot"
        if job != INITIAL:
            self._what = "backfill"
            self._told_of["backfill"] = job
        self._begun = self._told = time.monotonic()
        self._before = self._read = progress.rows
        self._estimated = 0
        self._table = ""
        self._rows = snapshot_rows.labels(source)
        self._all = snapshot_estimated.labels(source)
        self._left = snapshot_seconds_left.labels(source)
        self._running = snapshot_running.labels(source)
        self._running.set(1)
        self._rows.set(progress.rows)

    @property
    def copied(self) -> Copied:
        """How far it is."""
        rate = (self._read - self._before) / max(time.monotonic() - self._begun, 0.001)
        left = None
        if rate and self._estimated:
            left = max(self._estimated - self._read, 0) / rate
        return Copied(self._read, self._estimated, self._table, rate, left)

    def estimated(self, left: int) -> None:
        """So many rows are left, by the server's statistics."""
        self._estimated = self._before + left
        self._all.set(self._estimated)
        _log.info(
            f"a {self._what} is taken" if not self._before else f"a {self._what} goes on",
            **self._told_of,
            rows=self._before,
            estimated_rows=self._estimated,
        )

    def reached(self, progress: Progress, table: str) -> None:
        """It is this far, in this table."""
        self._read, self._table = progress.rows, table
        self._rows.set(progress.rows)
        now = time.monotonic()
        if now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        copied = self.copied
        self._left.set(copied.seconds_left or 0)
        _log.info(
            f"{self._what} under way",
            **self._told_of,
            table=table,
            rows=copied.rows,
            estimated_rows=copied.estimated,
            rows_per_second=round(copied.rate),
            seconds_left=None if copied.seconds_left is None else round(copied.seconds_left),
        )

    def finished(self, progress: Progress) -> None:
        """Everything was read."""
        self.close()
        self._read = progress.rows
        self._rows.set(progress.rows)
        _log.info(
            f"{self._what} done",
            **self._told_of,
            rows=progress.rows,
            seconds=round(time.monotonic() - self._begun, 1),
        )

    def close(self) -> None:
        """It is not under way any more, whether it is done or not."""
        self._running.set(0)
        self._left.set(0)
