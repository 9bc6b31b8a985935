"""How often an idle source is asked again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from connectors.backoff import jittered

# Bytewax freezes the other steps of a worker until the awaited moment when a partition asks for a
# late one, so a partition is woken often and looks at its own deadlines.
_BUSY = timedelta(milliseconds=1)
_IDLE = timedelta(milliseconds=5)
_IDLE_AFTER = 1.0
# Bytewax reads the clock once before it asks all partitions of a worker, and sleeps from then until
# `next_awake`. When one of them was held up, or the process frozen, for longer than this, it would
# sleep that long again: so it is told to come back at once.
_HELD_UP_AFTER = 0.25


class Pace:
    """Wakes a partition at once while there is work, and every few milliseconds when idle."""

    def __init__(self) -> None:
        self._worked = self._asked = time.monotonic()
        self._awake: datetime | None = None

    def worked(self) -> None:
        """The partition produced something."""
        self._worked = self._asked = time.monotonic()
        self._awake = None

    def rested(self) -> None:
        """The partition had nothing to do."""
        now = time.monotonic()
        held_up = now - self._asked > _HELD_UP_AFTER
        self._asked = now
        idle = now - self._worked > _IDLE_AFTER
        self._awake = None if held_up else datetime.now(UTC) + (_IDLE if idle else _BUSY)

    def next_awake(self) -> datetime | None:
        """What Bytewax's `next_awake` is to return."""
        return self._awake


class Backoff:
    """Deadlines of repeated attempts: exponential with jitter, never blocking.

    Args:
        first: Seconds before the second attempt.
        longest: Upper bound of the wait in seconds.
    """

    def __init__(self, first: float = 0.1, longest: float = 10.0) -> None:
        self._first, self._longest = first, longest
        self._wait = first
        self._due = 0.0

    def due(self) -> bool:
        """Whether the next attempt may be made now."""
        return time.monotonic() >= self._due

    def failed(self) -> bool:
        """An attempt failed: the next one is later. True for the first failure in a row."""
        first = self._wait == self._first
        self._due = time.monotonic() + jittered(self._wait)
        self._wait = min(self._wait * 2, self._longest)
        return first

    def succeeded(self) -> None:
        """An attempt succeeded: a later failure starts from the beginning."""
        self._wait = self._first
        self._due = 0.0
