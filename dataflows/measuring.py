"""Counts what flows through the dataflows, once for each batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Change, Delivered
    from connectors.contracts.sink import Batch

# The envelope has two: the commit's, and behind it that of its reading (docs/messages.md).
_TIME = b'"ts_ms":'


def committed(change: Change | Delivered) -> float | None:
    """When a change was committed at its source (seconds since 1970); None: it does not say."""
    envelope = change.envelope
    read = envelope.rfind(_TIME)
    commit = envelope.rfind(_TIME, 0, max(read, 0))
    digits = envelope[commit + len(_TIME) : commit + len(_TIME) + 20].partition(b",")[0]
    return int(digits) / 1000 if commit >= 0 and digits.isdigit() else None


class CaptureMeter:
    """What a source's capture has done.

    Args:
        source: The source's name.
    """

    def __init__(self, source: str) -> None:
        self._open = metrics.source_open.labels(source)
        self._captured = metrics.captured_changes.labels(source)
        self._published = metrics.published_messages.labels(source)
        self._batches = metrics.capture_batches.labels(source)
        self._latency = metrics.capture_latency.labels(source)

    def opened(self, *, is_open: bool) -> None:
        """The source's log is being read, or not."""
        self._open.set(is_open)

    def read(self, changes: int) -> None:
        """So many changes were read."""
        self._captured.inc(changes)

    def published(self, messages: Sequence[tuple[str, Change]]) -> None:
        """These were handed to the stream."""
        self._published.inc(len(messages))
        self._batches.observe(len(messages))
        if (commit := committed(messages[-1][1])) is not None:
            self._latency.observe(max(0.0, time.time() - commit))


class DeliveryMeter:
    """What the delivery of a share has done.

    Args:
        sink: The sink's name.
        stream: The stream's name.
    """

    def __init__(self, sink: str, stream: str) -> None:
        self._open = metrics.share_open.labels(sink, stream)
        self._delivered = metrics.delivered_changes.labels(sink, stream)
        self._batches = metrics.delivery_batches.labels(sink, stream)
        self._latency = metrics.delivery_latency.labels(sink, stream)

    def opened(self, *, is_open: bool) -> None:
        """The share is being read, or not."""
        self._open.set(is_open)

    def delivered(self, batch: Batch) -> None:
        """The sink has taken a batch."""
        changes = batch.changes
        self._delivered.inc(len(changes))
        self._batches.observe(len(changes))
        if changes and (commit := committed(changes[-1])) is not None:
            self._latency.observe(max(0.0, time.time() - commit))
