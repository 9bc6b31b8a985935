"""What a flow that is to stop still waits for: not for a target that is in trouble."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Condition, Event

# How long it waits for a target that is silent, for a lock perhaps.
GRACE_S = 5.0
_POLL_S = 0.1


def wait_until(done: Callable[[], bool], changed: Condition, stop: Event) -> bool:
    """Wait until `done`; returns False when `stop` was set, and it was not done soon after.

    Args:
        done: Asked with `changed` held.
        changed: Held by the caller; notified when `done` may have come to be true.
        stop: The flow's.
    """
    give_up = math.inf
    while not done():
        changed.wait(_POLL_S)
        if stop.is_set():
            give_up = min(give_up, time.monotonic() + GRACE_S)
        if time.monotonic() > give_up:
            return False
    return True


def pause(seconds: float, closing: Event, stop: Event) -> bool:
    """Wait before another attempt; returns False as soon as `stop` is set: there is to be none.

    Args:
        seconds: How long.
        closing: Once set, nothing is waited for.
        stop: The flow's.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stop.is_set():
            return False
        if closing.wait(min(left, _POLL_S)):
            break
    return True
