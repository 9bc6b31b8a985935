"""The batches of a publisher that the stream has not acknowledged yet, free of I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING
from uuid import uuid4

from connectors.jetstream.frames import rename_batch

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class PendingBatch:
    """A batch under way.

    Attributes:
        name: Its batch id, also the last token of its reply subject.
        frames: What is sent.
        last: The sequence of its last message once it is stored.
        sent: When it was last sent (monotonic); 0: not since the stream was last looked at.
    """

    name: str
    frames: bytes
    last: int
    sent: float = 0.0


class Inflight:
    """A chain of batches, each of which must follow the one before it.

    The server stores a batch only behind its predecessor, so what is stored is always the
    beginning of the chain.

    Args:
        stored: The sequence of the stream's last message.
    """

    def __init__(self, stored: int) -> None:
        self.stored = stored
        self.batches: deque[PendingBatch] = deque()
        self._run = uuid4().hex[:16]
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def end(self) -> int:
        """The sequence that the next batch must follow."""
        return self.batches[-1].last if self.batches else self.stored

    def next_name(self) -> str:
        """A fresh batch id of 32 characters."""
        return f"{self._run}{next(self._numbers):016x}"

    def add(self, name: str, frames: bytes, messages: int) -> PendingBatch:
        """Append a batch that was encoded to follow `end`."""
        batch = PendingBatch(name, frames, self.end + messages)
        self.batches.append(batch)
        return batch

    def acknowledge(self, name: str, sequence: int) -> bool:
        """Drop a batch that is stored, and those before it; False if it is not what was sent."""
        for index, batch in enumerate(self.batches):
            if batch.name == name:
                if batch.last != sequence:
                    return False
                for _ in range(index + 1):
                    self.stored = self.batches.popleft().last
                return True
        return True

    def has(self, name: str) -> bool:
        """Whether a batch of this id is under way; answers to earlier attempts are not."""
        return any(batch.name == name for batch in self.batches)

    def drop_stored(self, last_sequence: int) -> bool:
        """Drop what a stream that ends at `last_sequence` holds.

        Returns:
            False if the stream ends elsewhere than between two batches.
        """
        while self.batches and self.batches[0].last <= last_sequence:
            self.stored = self.batches.popleft().last
        return self.stored == last_sequence

    def rename(self) -> None:
        """Make all batches ready to be sent again."""
        for batch in self.batches:
            name = self.next_name()
            batch.frames = rename_batch(batch.frames, batch.name, name)
            batch.name, batch.sent = name, 0.0

    def send(self, send: Callable[[bytes], None], now: float, limit: int) -> None:
        """Send up to `limit` batches that were not sent yet, in order."""
        for batch in self.batches:
            if limit <= 0:
                return
            if not batch.sent:
                batch.sent = now
                send(batch.frames)
            limit -= 1
