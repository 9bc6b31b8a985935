"""Batches of the size that a sink wants."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES
from connectors.contracts.sink import Batch

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Claim
    from dataflows.configuration.options import BatchSpec


class Gathering:
    """Cuts what a consumer reads into batches, and waits for more where a sink likes them full.

    Args:
        spec: How large they are to be, and how long one that is not full may wait.
    """

    def __init__(self, spec: BatchSpec) -> None:
        self._size, self._wait = spec.size, spec.time.total_seconds()
        self._changes: deque[Delivered] = deque()
        self._claim: Claim | None = None
        self._bytes = 0
        self._since = 0.0
        self._upto = self._given = self._complete = self._ended = 0

    @property
    def full(self) -> bool:
        """Whether a batch is ready without a further change."""
        return len(self._changes) >= self._size or self._bytes >= CHUNK_BYTES

    def add(self, batch: Batch) -> None:
        """Take what follows what was taken before."""
        if not self._changes:
            self._since = time.monotonic()
        self._claim = batch.claim
        self._changes.extend(batch.changes)
        self._bytes += sum([len(change.envelope) for change in batch.changes])
        self._upto, self._complete = batch.upto, batch.complete

    def take(self) -> Batch | None:
        """The next batch; None while there is none, or it may still grow."""
        if self._claim is None or self._given == self._upto:
            return None
        if self._changes and not self.full and time.monotonic() - self._since < self._wait:
            return None
        changes: list[Delivered] = []
        while self._changes and len(changes) < self._size:
            changes.append(self._changes.popleft())
        self._bytes -= sum([len(change.envelope) for change in changes])
        if self._changes:
            self._since = time.monotonic()
            self._given = changes[-1].sequence
            ends = (c.sequence for c in reversed(changes) if c.last or not c.transaction)
            self._ended = next(ends, self._ended)
        else:
            self._given, self._ended = self._upto, self._complete
        return Batch(self._claim, changes, self._given, self._ended)
