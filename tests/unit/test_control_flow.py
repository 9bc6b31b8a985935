"""The state machine of a flow, with processes and a clock of the test's own."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace

import pytest

from connectors.errors import RetryableError
from control.supervisor.flow import Patience, SupervisedFlow, Wanted
from control.supervisor.records import State
from control.supervisor.rendering import Rendered

_PATIENCE = Patience(grace=20, peers=5, first=1, longest=60, healthy=60, loop=3)


@dataclass
class FakeGroup:
    """Processes that end when the test says so."""

    mark: str
    members: int = 1
    ended_members: int = 0
    status: int | None = None
    done: bool = False
    words: str = "its last words"
    signals: list[signal.Signals] = field(default_factory=list)
    forgotten: bool = False

    @property
    def ended(self) -> bool:
        return self.ended_members > 0

    @property
    def gone(self) -> bool:
        return self.ended_members == self.members

    def end(self, status: int) -> None:
        self.ended_members, self.status = self.members, status

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def last_error(self) -> str:
        return self.words

    def forget(self) -> None:
        assert self.gone
        self.forgotten = True


class Bench:
    """A flow under test, and everything it has started."""

    def __init__(self) -> None:
        self.started: list[FakeGroup] = []
        self.members = 1
        self.failing: Exception | None = None
        self.flow = SupervisedFlow("capture/shop", self._launch, _PATIENCE)
        self.now = 1000.0

    def _launch(self, wanted: Wanted) -> FakeGroup:
        if self.failing is not None:
            raise self.failing
        assert all(group.gone for group in self.started), "two of one flow"
        self.started.append(FakeGroup(wanted.mark, self.members))
        return self.started[-1]

    def pass_time(self, seconds: float = 0.2, *, may_start: bool = True) -> State:
        self.now += seconds
        self.flow.step(self.now, may_start=may_start)
        return self.flow.state

    def until_started(self, number: int, most: float) -> float:
        """Seconds that it took until the start of this number."""
        began = self.now
        while len(self.started) < number:
            assert self.now - began <= most, self.flow.state
            self.pass_time(0.1)
        return self.now - began


def _wanted(mark: str = "a", *, paused: bool = False, revision: int = 1) -> Wanted:
    return Wanted(Rendered("capture/shop", "postgres", {}, 1, 1, mark), mark, paused, revision)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.flow.want(_wanted())
    return made


@pytest.fixture
def running(bench: Bench) -> Bench:
    assert bench.pass_time() is State.RUNNING
    return bench


def test_it_waits_until_it_may_start(bench: Bench) -> None:
    assert bench.pass_time(may_start=False) is State.PENDING
    assert (bench.started, bench.flow.observed) == ([], 0)
    assert bench.pass_time() is State.RUNNING
    assert bench.flow.observed == 1


def test_nothing_happens_while_nothing_changes(running: Bench) -> None:
    for _ in range(100):
        assert running.pass_time(10) is State.RUNNING
    assert [group.signals for group in running.started] == [[]]


def test_a_changed_mark_restarts_it_after_it_has_ended_in_order(running: Bench) -> None:
    running.flow.want(_wanted("b", revision=2))
    assert running.pass_time() is State.STOPPING
    assert running.flow.observed == 0
    old = running.started[0]
    assert running.pass_time() is State.STOPPING
    assert old.signals == [signal.SIGTERM]
    old.end(0)
    assert running.pass_time() is State.RUNNING
    assert [group.mark for group in running.started] == ["a", "b"]
    assert (running.flow.observed, running.flow.restarts, old.forgotten) == (2, 0, True)


def test_another_revision_with_the_same_mark_leaves_it_alone(running: Bench) -> None:
    running.flow.want(_wanted("a", revision=7))
    assert running.pass_time() is State.RUNNING
    assert running.flow.observed == 7
    assert running.started[0].signals == []


def test_one_that_does_not_end_is_killed_after_its_grace(running: Bench) -> None:
    running.flow.want(_wanted(paused=True))
    running.pass_time()
    assert running.pass_time(19.5) is State.STOPPING
    assert running.started[0].signals == [signal.SIGTERM]
    running.pass_time(0.6)
    assert running.started[0].signals == [signal.SIGTERM, signal.SIGKILL]
    running.started[0].end(-9)
    assert running.pass_time() is State.PAUSED
    assert running.flow.observed == 1


def test_a_paused_one_starts_when_it_is_resumed(running: Bench) -> None:
    running.flow.want(_wanted(paused=True))
    running.pass_time()
    running.started[0].end(0)
    assert running.pass_time(1000) is State.PAUSED
    running.flow.want(_wanted())
    assert running.pass_time() is State.RUNNING


def test_a_crash_is_followed_by_a_start_after_a_pause_that_grows(bench: Bench) -> None:
    waits = []
    for number in range(1, 9):
        waits.append(bench.until_started(number, 61))
        bench.started[-1].end(1)
        expected = State.CRASH_LOOP if number >= _PATIENCE.loop else State.BACKING_OFF
        assert bench.pass_time(0.1) is expected
        assert bench.flow.last_error == "ended with status 1: its last words"
    for wait, full in zip(waits[1:], (1, 2, 4, 8, 16, 32, 60), strict=True):
        assert full / 2 - 0.2 <= wait <= full + 0.2
    assert bench.flow.restarts == 7


def test_a_healthy_minute_makes_up_for_earlier_crashes(bench: Bench) -> None:
    for number in range(1, 5):
        bench.until_started(number, 61)
        bench.started[-1].end(1)
        bench.pass_time(0.1)
    assert bench.flow.state is State.CRASH_LOOP
    bench.until_started(5, 61)
    bench.pass_time(61)
    bench.started[-1].end(-9)
    assert bench.pass_time(0.1) is State.BACKING_OFF
    assert bench.flow.last_error.startswith("ended by signal 9")
    assert bench.until_started(6, 1.1) <= 1.1


def test_a_refused_one_is_not_started_before_its_rendering_changes(running: Bench) -> None:
    running.started[0].end(2)
    for _ in range(50):
        assert running.pass_time(100) is State.REFUSED
    running.flow.want(_wanted("a", revision=2))
    assert running.pass_time() is State.REFUSED
    running.flow.want(_wanted("b", revision=3))
    assert running.pass_time() is State.RUNNING


def test_one_that_has_nothing_left_to_do_rests_until_it_is_asked_to_run(running: Bench) -> None:
    running.started[0].done = True
    running.started[0].end(0)
    for _ in range(50):
        assert running.pass_time(100) is State.DONE
    assert (running.flow.restarts, running.flow.last_error) == (0, "")
    running.flow.want(_wanted("b", revision=2))
    assert running.pass_time() is State.RUNNING


def test_one_that_somebody_else_has_asked_to_end_is_started_again(running: Bench) -> None:
    running.started[0].end(0)
    assert running.pass_time() is State.BACKING_OFF


def test_a_changed_rendering_does_not_wait_for_the_end_of_a_pause(bench: Bench) -> None:
    for number in range(1, 6):
        bench.until_started(number, 61)
        bench.started[-1].end(1)
        bench.pass_time(0.1)
    bench.flow.want(_wanted("b"))
    assert bench.pass_time(0.1) is State.RUNNING


def test_the_peers_of_an_ended_process_are_given_a_moment(bench: Bench) -> None:
    bench.members = 2
    bench.pass_time()
    (group,) = bench.started
    group.ended_members, group.status = 1, 1
    assert bench.pass_time() is State.RUNNING
    assert bench.pass_time(4) is State.RUNNING
    assert group.signals == []
    bench.pass_time(1.1)
    assert group.signals == [signal.SIGKILL]
    group.ended_members = 2
    assert bench.pass_time() is State.BACKING_OFF


def test_one_that_is_not_wanted_any_more_is_stopped_and_finished(running: Bench) -> None:
    running.flow.want(None)
    assert running.pass_time() is State.STOPPING
    assert not running.flow.finished
    running.started[0].end(0)
    running.pass_time()
    assert running.flow.finished


def test_one_that_is_adopted_goes_on_or_is_replaced() -> None:
    for mark, signals in (("a", []), ("old", [signal.SIGTERM])):
        bench = Bench()
        group = FakeGroup(mark)
        bench.flow.adopt(group, bench.now)
        bench.flow.want(_wanted())
        bench.pass_time()
        assert (group.signals, bench.started) == (signals, [])


def test_a_lost_one_is_killed_at_once_and_never_started_without_leave(running: Bench) -> None:
    running.flow.want(None)
    running.flow.kill()
    assert running.started[0].signals == [signal.SIGKILL]
    running.started[0].end(-9)
    running.flow.want(_wanted())
    assert running.pass_time(may_start=False) is State.PENDING
    assert len(running.started) == 1


def test_a_start_that_fails_is_tried_again(bench: Bench) -> None:
    bench.failing = RetryableError("control.leftover", "still there")
    assert bench.pass_time() is State.BACKING_OFF
    assert "still there" in bench.flow.last_error
    bench.failing = None
    bench.until_started(1, 1.1)
    assert bench.flow.state is State.RUNNING


def test_a_wish_that_is_taken_back_while_it_stops_starts_it_again(running: Bench) -> None:
    running.flow.want(_wanted(paused=True))
    running.pass_time()
    running.flow.want(replace(_wanted(), revision=3))
    assert running.pass_time() is State.STOPPING
    running.started[0].end(0)
    assert running.pass_time() is State.RUNNING
    assert len(running.started) == 2
