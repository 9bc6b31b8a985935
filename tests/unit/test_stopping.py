"""What a flow that is to stop still waits for."""

from __future__ import annotations

import time
from threading import Condition, Event, Thread

import pytest

from connectors.stopping import pause, wait_until


def test_what_is_done_is_waited_for_until_the_flow_is_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("connectors.stopping.GRACE_S", 0.05)
    changed, stop, done = Condition(), Event(), Event()

    def finish() -> None:
        with changed:
            done.set()
            changed.notify_all()

    thread = Thread(target=finish)
    with changed:
        thread.start()
        assert wait_until(done.is_set, changed, stop)
        stop.set()
        assert wait_until(done.is_set, changed, stop)
        done.clear()
        assert not wait_until(done.is_set, changed, stop)
    thread.join()


def test_what_is_done_within_the_grace_counts() -> None:
    changed, stop, asked = Condition(), Event(), iter([False, False, True])
    stop.set()
    with changed:
        assert wait_until(lambda: next(asked), changed, stop)


def test_a_pause_ends_with_the_writer_and_with_the_flow() -> None:
    closing, stop = Event(), Event()
    assert pause(0.01, closing, stop)
    began = time.monotonic()
    closing.set()
    assert pause(60.0, closing, stop)
    stop.set()
    assert not pause(60.0, closing, stop)
    assert time.monotonic() - began < 30
