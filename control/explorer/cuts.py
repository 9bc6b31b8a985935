"""Finds a place among many messages by counting, free of I/O.

A cut divides messages that lie in several lanes at one value of an axis, their sequence or their
time. How many lie before a value can be asked; the value before which so many lie is found by
interpolation, with every third step a bisection, so that an uneven axis costs steps, not the
result.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

_BISECT_EACH = 3


class Cut(msgspec.Struct, frozen=True, dict=True):
    """A division of lanes.

    Attributes:
        value: On the axis; what is smaller lies before the cut.
        places: For each lane, the sequence of the first message behind the cut, or a smaller one
            behind every message before it.
        ranks: For each lane, how many messages lie before the cut.
    """

    value: int
    places: tuple[int, ...]
    ranks: tuple[int, ...]

    @cached_property
    def total(self) -> int:
        """How many messages lie before the cut."""
        return sum(self.ranks)


def narrowed(
    low: Cut, high: Cut, first: int, last: int, probe: Callable[[int], Cut], slack: int
) -> tuple[Cut, Cut]:
    """Two cuts with the messages of the ordinals `first` to `last` between them.

    Args:
        low: A cut at or before the message `first`.
        high: A cut behind the message before `last`.
        first: Counted from 0.
        last: Behind the last one that is wanted.
        probe: The cut at a value.
        slack: So many messages too many are fine, on either side.
    """
    low, near = _approach(low, high, first, probe, slack)
    # Behind the wanted ones, from the side of the smaller cut that is known to lie behind `first`.
    begin = low if near.total > last else near
    _, high = _approach(begin, high, last, probe, slack, upper=True)
    return low, high


def _approach(
    low: Cut,
    high: Cut,
    target: int,
    probe: Callable[[int], Cut],
    slack: int,
    *,
    upper: bool = False,
) -> tuple[Cut, Cut]:
    """Narrow `low.total <= target <= high.total` until one side is near the target."""
    step = 0
    while high.value - low.value > 1:
        if (high.total - target if upper else target - low.total) <= slack:
            break
        step += 1
        span, count = high.value - low.value, high.total - low.total
        wanted = target - low.total + (slack // 2 if upper else -(slack // 2))
        if step % _BISECT_EACH == 0 or not count:
            guess = low.value + span // 2
        else:
            guess = low.value + span * min(max(wanted, 0), count) // count
        cut = probe(min(max(guess, low.value + 1), high.value - 1))
        if cut.total <= target and not (upper and cut.total == target):
            low = cut
        else:
            high = cut
    return low, high
