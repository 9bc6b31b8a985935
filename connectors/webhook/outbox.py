"""What has been written and is not delivered yet, shared by the writer and its threads."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from connectors.webhook.ordering import Ordering
from connectors.webhook.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.webhook.events import Event
    from connectors.webhook.ordering import Unit

# About as much waits at most, and what one call brings.
QUEUE_EVENTS = 4000
QUEUE_BYTES = 16 * 1024 * 1024
# A claim that was confirmed so many seconds ago is confirmed again before more is sent, and so it
# is when something follows after nothing was under way.
FRESH_S = 1.0


class Outbox:
    """Events in their order, from the call that wrote them until the endpoint has taken them.

    Attributes:
        changed: Held for every look at the attributes; told of what writer and keeper wait for.
        error: Why nothing more is sent.
        closing: The writer is being closed.
        sending: How many requests are under way, those that wait to be repeated included.
        proven: The endpoint has taken something. Until then one request at a time is enough to find
            out what it thinks of us.
        revivals: How often it has answered again after it was silent.
        flushing: The writer waits for everything.
        stored: The offset that is stored.
        wanted: A sender waits for the claim to be confirmed.
    """

    def __init__(self, stored: int) -> None:
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self._work = threading.Condition(lock)
        self._ordering = Ordering()
        self._progress = Progress()
        self._bytes = self._events = 0
        self._not_before = 0.0
        self._confirmed = -math.inf
        self.error: Exception | None = None
        self.closing = False
        self.sending = 0
        self.proven = False
        self.revivals = 0
        self.flushing = False
        self.stored = stored
        self.wanted = False

    @property
    def reached(self) -> int:
        """Everything up to this sequence has been delivered."""
        return self._progress.advance()

    def over(self) -> bool:
        """Whether nothing more is sent."""
        return self.closing or self.error is not None

    @property
    def empty(self) -> bool:
        """Whether everything that was put in has been delivered."""
        return not self._events

    @property
    def room(self) -> bool:
        """Whether more may be put in."""
        return self._events < QUEUE_EVENTS and self._bytes < QUEUE_BYTES

    def put(self, events: Iterable[Event], upto: int | None) -> int:
        """Put events behind all others; returns how many are in now.

        Args:
            events: What is to be sent.
            upto: The sequence that everything has been delivered up to when they are; None: these
                do not count.
        """
        with self.changed:
            if self.empty:
                # Whoever has had nothing to do, or replays, may have been overtaken meanwhile.
                self._confirmed = -math.inf
            for event in events:
                unit = self._ordering.add(event)
                self._events += 1
                self._bytes += len(event.body)
                if upto is not None:
                    self._progress.begin(unit)
            if upto is not None:
                self._progress.end(upto)
            self._work.notify_all()
            self.changed.notify_all()
            return self._events

    def take(self, count: int, size: int) -> list[Unit]:
        """Wait for what may be sent now and take one request's worth; none when it is over.

        Every taking is followed by `finish` or `abandon`.
        """
        with self.changed:
            while not self.over():
                wait = self._wait()
                if wait == 0:
                    self.sending += 1
                    return self._ordering.take(count, size)
                self._work.wait(wait)
            return []

    def _wait(self) -> float | None:
        """Seconds until something may be sent; None: until something else has happened."""
        if not self._ordering.ready or (self.sending and not self.proven):
            return None
        now = time.monotonic()
        if now < self._not_before:
            return self._not_before - now
        if now - self._confirmed > FRESH_S:
            if not self.wanted:
                self.wanted = True
                self.changed.notify_all()
            return None
        return 0

    def finish(self, units: list[Unit]) -> None:
        """The endpoint has taken these."""
        with self.changed:
            full = not self.room
            self.sending -= 1
            if not self.proven:
                self.proven = True
                self._work.notify_all()
            self._ordering.finish(units)
            self._events -= len(units)
            self._bytes -= sum([len(unit.event.body) for unit in units])
            if self._ordering.ready:
                self._work.notify(len(units))
            if not self._events or (full and self.room):
                self.changed.notify_all()

    def abandon(self) -> None:
        """What was taken last is not sent any more, since it is over."""
        with self.changed:
            self.sending -= 1
            self.changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Send nothing more. The first error counts."""
        with self.changed:
            if self.error is None:
                self.error = error
            self._wake()

    def close(self) -> None:
        """Send nothing more."""
        with self.changed:
            self.closing = True
            self._wake()

    def confirmed(self, since: float, stored: int) -> None:
        """The claim was the newest at `since` (monotonic), and an offset has been stored."""
        with self.changed:
            self._confirmed = since
            self.wanted = False
            self.stored = max(self.stored, stored)
            self._work.notify_all()
            self.changed.notify_all()

    def rest(self, seconds: float) -> None:
        """The endpoint wants to hear nothing for a while."""
        with self.changed:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def revive(self) -> None:
        """The endpoint answers: whoever waits because it did not, need not wait any longer."""
        with self.changed:
            self.revivals += 1
            self._work.notify_all()

    def pause(self, seconds: float, *, silent: bool) -> None:
        """Wait before a request is repeated.

        Args:
            seconds: How long; longer, if the endpoint wants to rest.
            silent: The endpoint did not answer: the wait ends when it answers someone else.
        """
        with self.changed:
            until = time.monotonic() + seconds
            seen = self.revivals
            while not self.over() and not (silent and self.revivals > seen):
                left = max(until, self._not_before) - time.monotonic()
                if left <= 0:
                    return
                self._work.wait(left)

    def _wake(self) -> None:
        self._work.notify_all()
        self.changed.notify_all()
