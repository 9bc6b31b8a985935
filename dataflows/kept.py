"""What a sink's writer was given and may have to be given again, within bounds.

A sink that applies transactions whole stores nothing of one before its end, which may be a million
changes away: so the oldest batches are forgotten, and have to be read again from the stream if the
target refuses something meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from connectors.contracts.sink import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.changes import Delivered

# Well above what a writer has under way, so that what it refuses when it sees it first is there.
KEPT_BYTES = 64 * 1024 * 1024
# What a change takes in memory besides its envelope, about.
_CHANGE_BYTES = 500


class Kept:
    """Batches that are not known to be stored, in order.

    Args:
        most: Bytes from which the oldest batches are forgotten; None: nothing ever is. The newest
            one stays, whatever its size.

    Attributes:
        forgotten: Changes up to this sequence may be missing unless they are stored; 0: none.
        origins: As in `contracts.Batch`, of all batches.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        # Each with its weight.
        self._batches: deque[tuple[Batch, int]] = deque()
        self._size = 0
        self.forgotten = 0
        self.origins: dict[int, Delivered] = {}

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def size(self) -> int:
        """About how many bytes are kept."""
        return self._size

    @property
    def last(self) -> Batch:
        """The newest batch; there must be one."""
        return self._batches[-1][0]

    @property
    def changes(self) -> list[Delivered]:
        """Those of all batches."""
        return [change for batch, _ in self._batches for change in batch.changes]

    def add(self, batch: Batch) -> None:
        """Keep one batch more, and forget the oldest where that is too much."""
        self.origins.update(batch.origins)
        if self._batches and not batch.changes and not batch.origins:
            last, weight = self._batches[-1]
            merged = Batch(last.claim, last.changes, batch.upto, batch.complete, last.origins)
            self._batches[-1] = (merged, weight)
            return
        weight = _bytes(batch.changes) + _bytes(batch.origins.values())
        self._batches.append((batch, weight))
        self._size += weight
        if self._most is not None and self._size > self._most:
            # Some at once, since the origins are looked through each time.
            while len(self._batches) > 1 and self._size > self._most * 3 // 4:
                self.forgotten = self._drop()
            self._forget_origins(self.forgotten)

    def prune(self, stored: int) -> None:
        """Let go of what is stored by now."""
        while self._batches and self._batches[0][0].upto <= stored:
            self._drop()
        self._forget_origins(stored)

    def take(self) -> list[Batch]:
        """All batches, which are kept no longer."""
        batches = [batch for batch, _ in self._batches]
        self._batches.clear()
        self._size = 0
        return batches

    def _drop(self) -> int:
        batch, weight = self._batches.popleft()
        self._size -= weight
        return batch.upto

    def _forget_origins(self, upto: int) -> None:
        if self.origins and next(iter(self.origins)) <= upto:
            self.origins = {at: each for at, each in self.origins.items() if at > upto}


def _bytes(changes: Iterable[Delivered]) -> int:
    return sum([_CHANGE_BYTES + len(change.envelope) for change in changes])
