"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.errors import FailedError


def wait_until(
    condition: Callable[[], bool], *, what: str, timeout: float, interval: float = 0.05
) -> None:
    """Ask until the answer is True.

    Args:
        condition: Cheap; may raise to give up early.
        what: What is waited for, for the error.
        timeout: Seconds.
        interval: Seconds between two questions.

    Raises:
        FailedError: It was still False after `timeout`.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise FailedError(f"gave up after {timeout:.0f} s: {what}")
        time.sleep(interval)
