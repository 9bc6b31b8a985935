"""What the owner is told about a snapshot that is under way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from connectors.metrics import snapshot_estimated, snapshot_rows, snapshot_running

if TYPE_CHECKING:
    from connectors.snapshot.progress import Progress

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_TELL_EVERY_S = 10.0


class Copying:
    """Tells of a snapshot's progress in the log and in metrics.

    Args:
        source: The source's name.
        progress: From where it goes on.
    """

    def __init__(self, source: str, progress: Progress) -> None:
        self._source = source
        self._begun = self._told = time.monotonic()
        self._before = progress.rows
        self._estimated = 0
        self._rows = snapshot_rows.labels(source)
        self._all = snapshot_estimated.labels(source)
        self._running = snapshot_running.labels(source)
        self._running.set(1)
        self._rows.set(progress.rows)

    def estimated(self, left: int) -> None:
        """So many rows are left, by the server's statistics."""
        self._estimated = self._before + left
        self._all.set(self._estimated)
        _log.info(
            "a snapshot is taken" if not self._before else "a snapshot goes on",
            source=self._source,
            rows=self._before,
            estimated_rows=self._estimated,
        )

    def reached(self, progress: Progress, table: str) -> None:
        """It is this far, in this table."""
        self._rows.set(progress.rows)
        now = time.monotonic()
        if now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        rate = (progress.rows - self._before) / (now - self._begun)
        left = max(self._estimated - progress.rows, 0)
        _log.info(
            "snapshot under way",
            source=self._source,
            table=table,
            rows=progress.rows,
            estimated_rows=self._estimated,
            rows_per_second=round(rate),
            seconds_left=round(left / rate) if rate else None,
        )

    def finished(self, progress: Progress) -> None:
        """Everything was read."""
        self._running.set(0)
        self._rows.set(progress.rows)
        _log.info(
            "snapshot done",
            source=self._source,
            rows=progress.rows,
            seconds=round(time.monotonic() - self._begun, 1),
        )

    def close(self) -> None:
        """It is not under way any more, whether it is done or not."""
        self._running.set(0)
