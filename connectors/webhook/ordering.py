"""Which events may be under way at the same time: those of different keys. Free of I/O.

An event waits for the last one of its key before it. One that stands alone (a truncate, a change
of key) waits for all of its topic before it, and all of its topic behind it wait for it. Events
without a key stand in one row for each topic.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.webhook.events import Event


class Unit:
    """An event in its place.

    Attributes:
        event: What is sent.
        number: Rises with each event that is added.
        done: It has been taken by the endpoint.
    """

    __slots__ = ("done", "event", "followers", "number", "taken", "waits")

    def __init__(self, event: Event, number: int) -> None:
        self.event = event
        self.number = number
        self.done = self.taken = False
        # How many others it waits for, and who waits for it.
        self.waits = 0
        self.followers: list[Unit] = []

    def __lt__(self, other: Unit) -> bool:
        return self.number < other.number


class Ordering:
    """Events that were added and are not done. Not for several threads at once."""

    def __init__(self) -> None:
        self._numbers = 0
        self._ready: list[Unit] = []
        self._tails: dict[tuple[str, str], Unit] = {}
        self._open: dict[str, set[Unit]] = {}
        self._barriers: dict[str, Unit] = {}

    @property
    def ready(self) -> bool:
        """Whether `take` would give something."""
        return bool(self._ready)

    def add(self, event: Event) -> Unit:
        """Put an event behind all others."""
        self._numbers += 1
        unit = Unit(event, self._numbers)
        opened = self._open.setdefault(event.topic, set())
        if event.alone:
            ahead = set(opened)
            self._barriers[event.topic] = unit
        else:
            place = (event.topic, event.key)
            ends = (self._barriers.get(event.topic), self._tails.get(place))
            ahead = {each for each in ends if each is not None}
            self._tails[place] = unit
        opened.add(unit)
        unit.waits = len(ahead)
        for each in ahead:
            each.followers.append(unit)
        if not ahead:
            heappush(self._ready, unit)
        return unit

    def take(self, count: int, size: int) -> list[Unit]:
        """Take events that may go into one request, the oldest first; none when nothing is ready.

        They may follow one another: within a request their order is kept.

        Args:
            count: How many at most.
            size: How many bytes of bodies at most; a single larger one is given all the same.
        """
        taken: list[Unit] = []
        # Ready as soon as what was taken is done.
        within: list[Unit] = []
        while len(taken) < count and (self._ready or within):
            first = self._ready and (not within or self._ready[0] < within[0])
            heap = self._ready if first else within
            size -= len(heap[0].event.body) + 1
            if taken and size < 0:
                break
            unit = heappop(heap)
            unit.taken = True
            taken.append(unit)
            for follower in unit.followers:
                follower.waits -= 1
                if not follower.waits:
                    heappush(within, follower)
        for unit in taken:
            for follower in unit.followers:
                if not follower.taken:
                    follower.waits += 1
        return taken

    def finish(self, units: Sequence[Unit]) -> None:
        """What was taken together is done: what waited for it may go."""
        for unit in units:
            unit.done = True
            event = unit.event
            for follower in unit.followers:
                if follower.taken:
                    continue
                follower.waits -= 1
                if not follower.waits:
                    heappush(self._ready, follower)
            unit.followers.clear()
            if event.alone:
                if self._barriers.get(event.topic) is unit:
                    del self._barriers[event.topic]
            elif self._tails.get((event.topic, event.key)) is unit:
                del self._tails[event.topic, event.key]
            opened = self._open[event.topic]
            opened.discard(unit)
            if not opened:
                del self._open[event.topic]
