from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from dataflows.pacing import Backoff, Pace


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_a_busy_partition_is_asked_again_at_once_and_an_idle_one_soon() -> None:
    pace = Pace()
    pace.rested()
    awake = pace.next_awake()
    assert awake is not None
    assert awake - datetime.now(UTC) < timedelta(milliseconds=50)
    pace.worked()
    assert pace.next_awake() is None


def test_attempts_grow_rarer_up_to_the_longest_and_start_over_after_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    backoff = Backoff(first=1.0, longest=4.0)
    assert backoff.due()
    first_ones, waits = [], []
    for _ in range(5):
        first_ones.append(backoff.failed())
        began = clock.now
        while not backoff.due():
            clock.now += 0.01
        waits.append(clock.now - began)
    assert first_ones == [True, False, False, False, False]
    for wait, longest in zip(waits, [1, 2, 4, 4, 4], strict=True):
        assert longest / 2 - 0.02 <= wait <= longest + 0.02
    backoff.succeeded()
    assert backoff.due()
    assert backoff.failed()


def test_a_partition_that_was_held_up_is_woken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Bytewax counts the time until `next_awake` from before it was held up.
    clock = _Clock(monkeypatch)
    pace = Pace()
    clock.now += 0.01
    pace.rested()
    assert pace.next_awake() is not None
    clock.now += 300.0
    pace.rested()
    assert pace.next_awake() is None
    clock.now += 0.01
    pace.rested()
    assert pace.next_awake() is not None
