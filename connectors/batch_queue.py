"""Batches that wait for the thread that writes them."""

from __future__ import annotations

from collections import deque

from connectors.contracts.sink import Batch

# About as much waits while the target works.
QUEUE_CHANGES = 5000
QUEUE_BYTES = 16 * 1024 * 1024
QUEUE_BATCHES = 256


class BatchQueue:
    """Batches in their order. Whoever shares it holds a lock.

    Attributes:
        changes: How many changes wait.
    """

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self.changes = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def room(self) -> bool:
        """Whether another batch, of whatever size, may be put in."""
        return not self._batches or (
            self.changes < QUEUE_CHANGES
            and self._bytes < QUEUE_BYTES
            and len(self._batches) < QUEUE_BATCHES
        )

    def put(self, batch: Batch) -> None:
        """Let a batch wait; what waits takes the offset of one without changes along."""
        if batch.changes or not self._batches:
            self._batches.append(batch)
        else:
            last = self._batches[-1]
            self._batches[-1] = Batch(last.claim, last.changes, batch.upto, batch.complete)
        self.changes += len(batch.changes)
        self._bytes += sum([len(change.envelope) for change in batch.changes])

    def take(self) -> list[Batch]:
        """All that wait; none does afterwards."""
        batches = list(self._batches)
        self.clear()
        return batches

    def clear(self) -> None:
        """Let none wait any longer."""
        self._batches.clear()
        self.changes = self._bytes = 0
