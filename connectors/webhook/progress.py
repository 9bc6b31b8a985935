"""How far a stream has been delivered without a hole, though later events may be done already."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.webhook.ordering import Unit


class Progress:
    """The events under way in stream order, and the sequence before the first that is not done."""

    def __init__(self) -> None:
        # The sequence of an event, or, without one, that up to which a batch was complete.
        self._under_way: deque[tuple[int, Unit | None]] = deque()
        self.reached = 0

    def begin(self, unit: Unit) -> None:
        """An event follows; `end` follows behind the last one of each batch."""
        self._under_way.append((unit.event.sequence, unit))

    def end(self, upto: int) -> None:
        """Every message up to this sequence has been begun."""
        self._under_way.append((upto, None))

    def advance(self) -> int:
        """Go past what is done; returns the sequence up to which everything is."""
        under_way = self._under_way
        while under_way:
            sequence, unit = under_way[0]
            if unit is not None and not unit.done:
                break
            under_way.popleft()
            # Of several events with one sequence the last one counts.
            if unit is None or (under_way and under_way[0][0] > sequence):
                self.reached = max(self.reached, sequence)
        return self.reached

    @property
    def idle(self) -> bool:
        """Whether nothing is under way; `advance` first."""
        return not self._under_way
