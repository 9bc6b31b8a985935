"""Control services run flows: real NATS, small processes in place of flows."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from connectors.errors import ConfigError
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.supervisor import membership as members
from control.supervisor.board import Board
from control.supervisor.bucket import BUCKET, FlowBucket
from control.supervisor.host import StateFolder
from control.supervisor.membership import SILENCE, Membership
from control.supervisor.observer import FlowObserver
from control.supervisor.records import FlowStatus, Lease, Service, State, flow_key
from tests.integration.control_flows import (
    TREE,
    Killed,
    MemorySpecs,
    MemorySpecSource,
    lives,
    service,
    starts,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from control.servers.nats import NatsServer
    from control.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.servers
_BOTH = ("capture/shop", "deliver/warehouse")


@pytest.fixture
def nats(nats_server: NatsServer) -> Iterator[str]:
    """The shared server, without the bucket of earlier tests."""
    yield nats_server.url
    with connect(NatsSpec.model_validate({"url": nats_server.url})) as connection:
        connection.request(f"$JS.API.STREAM.DELETE.KV_{BUCKET}")


def _all_in(supervisor: Supervisor, state: State, flows: tuple[str, ...] = _BOTH) -> bool:
    return supervisor.ready and all(supervisor.board.status(flow).state is state for flow in flows)


def _until_running(supervisor: Supervisor) -> None:
    until(lambda: _all_in(supervisor, State.RUNNING), "running")


class _Forgetting(FlowObserver):
    """Notes of which flows nothing more is to be known."""

    def __init__(self, flows: Path) -> None:
        super().__init__(flows)
        self.forgotten: list[str] = []

    def forget(self, flow: str) -> None:
        super().forget(flow)
        self.forgotten.append(flow)


def test_only_the_flow_whose_rendering_changes_is_restarted(nats: str, tmp_path: Path) -> None:
    specs, observer = MemorySpecSource(TREE), _Forgetting(tmp_path)
    with service(nats, tmp_path, specs, observer) as one:
        _until_running(one)
        until(lambda: all(starts(tmp_path, flow) for flow in _BOTH), "started")
        specs.edit(lambda tree: tree["sources"]["shop"].update(dsn="${OTHER}"))
        until(lambda: len(starts(tmp_path, "capture/shop")) == 2, "restarted")
        until(lambda: one.board.status("capture/shop").observed == 2, "observed")
        assert len(starts(tmp_path, "deliver/warehouse")) == 1
        # What a delivery reads late is there without a restart.
        specs.edit(lambda tree: tree.update(pipelines={"all": {"filter": "op != 'd'"}}))
        file = tmp_path / "flows" / "deliver.warehouse" / "waxtap.yaml"
        until(lambda: "op != 'd'" in file.read_text(), "configuration written")
        assert len(starts(tmp_path, "deliver/warehouse")) == 1
        assert (file.stat().st_mode & 0o777, "s3cret" in file.read_text()) == (0o600, False)
        specs.edit(lambda tree: tree["sinks"].pop("warehouse"))
        until(lambda: one.board.lease("deliver/warehouse") is None, "deleted")
        until(lambda: not file.parent.exists(), "folder removed")
        assert observer.forgotten == ["deliver/warehouse"]


def test_pause_resume_and_restart_from_any_service(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)
    with service(nats, tmp_path / "1", specs) as one:
        _until_running(one)
        with service(nats, tmp_path / "2", specs) as two:
            until(lambda: _all_in(two, State.RUNNING), "seen by the other")
            until(lambda: starts(tmp_path / "1", "capture/shop"), "started")
            two.pause("capture/shop")
            until(lambda: two.board.paused("capture/shop"), "paused")
            until(lambda: _all_in(one, State.PAUSED, ("capture/shop",)), "seen by the other")
            (pid,) = starts(tmp_path / "1", "capture/shop")
            assert not lives(pid)
            two.resume("capture/shop")
            _until_running(two)
            two.restart("capture/shop", "request-1")
            until(lambda: len(starts(tmp_path / "1", "capture/shop")) == 3, "restarted")
            two.restart("capture/shop", "request-1")
            assert two.board.desired("capture/shop").restarts == 1
            assert starts(tmp_path / "2", "capture/shop") == []


def test_a_flow_is_paused_once_its_owner_says_so_of_the_latest_wish(nats: str) -> None:
    member, flow = _Member(nats, "one"), "capture/shop"

    def paused(state: State, asked: int) -> bool:
        key = flow_key(flow, "status")
        status = FlowStatus(state, "one", asked=asked)
        assert member.bucket.put(key, status, member.bucket.get(key).revision)
        return member.board.paused(flow)

    with member.bucket:
        member.turn(0.0)
        member.membership.take([flow])
        assert not paused(State.BACKING_OFF, 0)
        member.board.ask(flow, lambda asked: replace(asked, paused=True))
        first = member.board.asked(flow)[1]
        # It has not seen that yet, and may be about to start.
        assert not member.board.paused(flow)
        assert not paused(State.STOPPING, first)
        assert paused(State.PAUSED, first)
        member.board.ask(flow, lambda asked: replace(asked, paused=False))
        assert not member.board.paused(flow)
        member.board.ask(flow, lambda asked: replace(asked, paused=True))
        assert not member.board.paused(flow)
        # Resumed in between, it may have been started again.
        assert not paused(State.PAUSED, first)
        assert paused(State.PAUSED, member.board.asked(flow)[1])


class _Late:
    """Tells of revisions late, or never; the first look may find an earlier one."""

    def __init__(self, specs: MemorySpecSource, first: MemorySpecs | None = None) -> None:
        self._specs, self._first = specs, first
        self.open = threading.Event()

    def read(self) -> MemorySpecs:
        found, self._first = self._first or self._specs.read(), None
        return found

    def changed(self, after: int, timeout: float) -> MemorySpecs | None:
        return self._specs.changed(after, timeout) if self.open.wait(min(timeout, 0.5)) else None


def _ends(supervisor: Supervisor, flow: str, revision: int, seconds: float) -> bool:
    async def ends() -> bool:
        try:
            await asyncio.wait_for(supervisor.stopped(flow, revision), seconds)
        except TimeoutError:
            return False
        return True

    return asyncio.run(ends())


def test_a_deleted_flow_has_stopped_once_every_service_knows(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)
    late = _Late(specs)
    with service(nats, tmp_path / "1", specs) as one, service(nats, tmp_path / "2", late) as two:
        until(lambda: _all_in(one, State.RUNNING), "running")
        until(lambda: _all_in(two, State.RUNNING), "seen by the other")
        assert _ends(one, "capture/no", 1, 5)
        # Made and deleted before a service has seen either: it may have read the one of these
        # revisions that has it, and be about to run it.
        specs.edit(lambda tree: tree["sources"].update(brief=tree["sources"]["shop"]))
        specs.edit(lambda tree: tree["sources"].pop("brief"))
        assert not _ends(one, "capture/brief", 3, 0.5)
        late.open.set()
        assert _ends(one, "capture/brief", 3, 5)


def test_who_joins_reads_the_configuration_afterwards(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)
    early = specs.read()
    specs.edit(lambda tree: tree["sources"].pop("shop"))
    with service(nats, tmp_path, _Late(specs, early)) as one:
        until(lambda: _all_in(one, State.RUNNING, ("deliver/warehouse",)), "running")
        assert _ends(one, "capture/shop", 2, 5)
        assert starts(tmp_path, "capture/shop") == []


def test_bad_ends_are_told(nats: str, tmp_path: Path) -> None:
    sinks = dict.fromkeys(("refuse", "crash"), TREE["sinks"]["warehouse"])
    specs = MemorySpecSource({**TREE, "sinks": sinks})
    with service(nats, tmp_path, specs) as one:
        until(lambda: _all_in(one, State.REFUSED, ("deliver/refuse",)), "refused")
        until(lambda: _all_in(one, State.CRASH_LOOP, ("deliver/crash",)), "crash loop")
        refused, crashing = (one.board.status(f"deliver/{name}") for name in sinks)
        assert refused.last_error == "ended with status 2: [a.code] tables: no such table"
        assert crashing.last_error == "ended with status 1: [a.code] tables: no such table"
        assert crashing.restarts >= 2
        assert len(starts(tmp_path, "deliver/refuse")) == 1
        assert _all_in(one, State.RUNNING, ("capture/shop",))


def test_a_killed_service_finds_its_flows_again(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)
    with service(nats, tmp_path, specs) as one:
        _until_running(one)
        until(lambda: all(starts(tmp_path, flow) for flow in _BOTH), "started")
        raise Killed
    before = {flow: starts(tmp_path, flow) for flow in _BOTH}
    assert all(lives(pid) for pids in before.values() for pid in pids)
    with service(nats, tmp_path, specs) as one:
        _until_running(one)
        assert {flow: starts(tmp_path, flow) for flow in _BOTH} == before
        assert [one.board.status(flow).pids for flow in _BOTH] == [tuple(before[f]) for f in _BOTH]
        raise Killed
    # What has changed meanwhile is started anew, once the old one has ended.
    specs.edit(lambda tree: tree["sources"]["shop"].update(dsn="${OTHER}"))
    with service(nats, tmp_path, specs) as one:
        until(lambda: len(starts(tmp_path, "capture/shop")) == 2, "replaced")
        _until_running(one)
        assert not lives(before["capture/shop"][0])
        assert starts(tmp_path, "deliver/warehouse") == before["deliver/warehouse"]
        raise Killed
    # One that was started in the moment of the kill is nowhere written down.
    (tmp_path / "flows" / "capture.shop" / "run.json").unlink()
    unknown = starts(tmp_path, "capture/shop")[-1]
    assert lives(unknown)
    with service(nats, tmp_path, specs) as one:
        until(lambda: len(starts(tmp_path, "capture/shop")) == 3, "started")
        assert not lives(unknown)
        _until_running(one)
        raise Killed
    # Nor does it go on where the flow is not to run.
    (tmp_path / "flows" / "capture.shop" / "run.json").unlink()
    unknown = starts(tmp_path, "capture/shop")[-1]
    member = _Member(nats, "other")
    with member.bucket:
        member.board.ask("capture/shop", lambda asked: replace(asked, paused=True))
    with service(nats, tmp_path, specs) as one:
        until(lambda: one.ready and one.board.paused("capture/shop"), "paused")
        assert not lives(unknown)
    assert not any(lives(pid) for flow in _BOTH for pid in starts(tmp_path, flow))


def test_another_service_takes_over_from_a_killed_one(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)
    with ExitStack() as stack:
        with service(nats, tmp_path / "1", specs) as one:
            _until_running(one)
            until(lambda: all(starts(tmp_path / "1", flow) for flow in _BOTH), "started")
            two = stack.enter_context(service(nats, tmp_path / "2", specs))
            until(lambda: _all_in(two, State.RUNNING), "seen by the other")
            with pytest.raises(ConfigError):
                StateFolder(tmp_path / "1")
            raise Killed
        old = [pid for flow in _BOTH for pid in starts(tmp_path / "1", flow)]
        assert all(lives(pid) for pid in old)
        # Whether a flow is to run or not, nothing that the dead one has left of it goes on.
        two.pause("capture/shop")
        took = until(lambda: starts(tmp_path / "2", "deliver/warehouse"), "taken over", 15)
        until(lambda: two.board.paused("capture/shop"), "paused")
        assert not any(lives(pid) for pid in old)
        assert {two.board.status(flow).owner for flow in _BOTH} == {two.service}
        assert took >= SILENCE - 2
        two.resume("capture/shop")
        _until_running(two)


def test_a_service_that_ends_in_order_leaves_its_flows_to_others(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)
    with service(nats, tmp_path / "1", specs) as one:
        _until_running(one)
    assert not any(lives(pid) for flow in _BOTH for pid in starts(tmp_path / "1", flow))
    with service(nats, tmp_path / "2", specs) as two:
        assert until(lambda: _all_in(two, State.RUNNING), "taken over") < SILENCE


def test_a_stubborn_flow_is_killed_after_its_grace(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource({"sources": {"stubborn": TREE["sources"]["shop"]}})
    with service(nats, tmp_path, specs) as one:
        until(lambda: _all_in(one, State.RUNNING, ("capture/stubborn",)), "running")
        until(lambda: starts(tmp_path, "capture/stubborn"), "started")
    assert not lives(starts(tmp_path, "capture/stubborn")[0])


class _Member:
    """A service's part in the bucket, with a clock that the test moves."""

    def __init__(self, url: str, name: str) -> None:
        self.bucket = FlowBucket(NatsSpec.model_validate({"url": url}), lambda: None)
        self.board = Board(self.bucket)
        self.membership = Membership(
            self.bucket, self.board, Service(name, f"host of {name}", "/nowhere", 0)
        )

    def turn(self, now: float) -> bool:
        self.bucket.refresh()
        alive = self.membership.beat(now)
        if alive:
            self.membership.look(now)
        return alive


def test_a_late_owner_learns_that_it_was_declared_dead(nats: str) -> None:
    late, other = _Member(nats, "late"), _Member(nats, "other")
    with late.bucket, other.bucket:
        late.turn(0.0)
        assert late.membership.take(["capture/shop"]).keys() == {"capture/shop"}
        for tenth in range(0, int(10 * SILENCE) - 20, 5):
            other.turn(tenth / 10)
            assert other.membership.take(["capture/shop"]) == {}
        # What was not seen does not count: a service that was away declares nobody dead.
        other.turn(1000.0)
        assert late.turn(1000.0)
        seconds = 1000.0
        while not (taken := other.membership.take(["capture/shop"])):
            seconds += 0.5
            other.turn(seconds)
        assert SILENCE <= seconds - 1000.0 <= SILENCE + 1.0
        (before,) = taken.values()
        assert before is not None
        assert before.id == "late"
        assert not late.membership.alive(seconds)
        assert not late.turn(seconds)
        assert late.membership.held == set()
        # It joins anew, and gets what is free.
        assert late.turn(seconds)
        assert late.membership.take(["capture/shop", "deliver/x"]).keys() == {"deliver/x"}


def test_a_lease_counts_only_if_it_was_written_since_the_service_joined(nats: str) -> None:
    """Revived just before its lease is taken, the late owner must not go on with it."""
    late, other = _Member(nats, "late"), _Member(nats, "other")
    with late.bucket, other.bucket:
        late.turn(0.0)
        late.membership.take(["capture/shop"])
        seconds = 0.0
        while not (service := other.board.service("late")) or not service.dead:
            seconds += 0.5
            other.turn(seconds)
        other.bucket.refresh()
        assert not late.turn(seconds)
        assert late.turn(seconds)
        late.bucket.refresh()
        assert late.membership.held == set()
        assert late.membership.take(["capture/shop"]).keys() == {"capture/shop"}
        # The other one still believes that it is dead.
        assert other.membership.take(["capture/shop"]) == {}
        other.bucket.refresh()
        assert late.membership.lost() == []


def test_a_lease_that_somebody_else_has_taken_is_not_given_back(nats: str) -> None:
    member, flow = _Member(nats, "one"), "capture/shop"
    with member.bucket:
        member.turn(0.0)
        member.membership.take([flow])
        member.board.ask(flow, lambda asked: replace(asked, paused=True))
        key = flow_key(flow, "lease")
        assert member.bucket.put(key, Lease("other"), member.bucket.get(key).revision)
        member.membership.drop([flow])
        member.bucket.refresh()
        assert member.board.lease(flow) == Lease("other")
        assert member.board.desired(flow).paused
        assert member.membership.held == set()


def _started_besides(state: Path, before: list[int]) -> bool:
    return starts(state, "capture/shop")[-1] not in before


def test_a_bucket_that_is_deleted_while_services_run_is_made_again(
    nats: str, tmp_path: Path
) -> None:
    def delete() -> None:
        with connect(NatsSpec.model_validate({"url": nats})) as connection:
            connection.request(f"$JS.API.STREAM.DELETE.KV_{BUCKET}")

    with service(nats, tmp_path, MemorySpecSource(TREE)) as one:
        _until_running(one)
        until(lambda: starts(tmp_path, "capture/shop"), "started")
        for made_by_us in (True, False):
            before = starts(tmp_path, "capture/shop")
            delete()
            if not made_by_us:
                _Member(nats, "other").bucket.close()
            # Whoever had the leases has them no longer.
            until(partial(_started_besides, tmp_path, before), "started anew")
            assert not any(map(lives, before))
            until(lambda: _all_in(one, State.RUNNING), "running again")
            assert one.board.lease("capture/shop") == Lease(one.service)
        one.pause("capture/shop")
        until(lambda: one.board.paused("capture/shop"), "paused")


def test_an_answer_that_was_lost_does_not_make_a_service_dead(nats: str) -> None:
    member = _Member(nats, "one")
    with member.bucket:
        member.turn(0.0)
        # Stored, but the service does not know it.
        sign = Service("one", "host of one", "/nowhere", 7)
        assert member.bucket.put("services.one", sign, member.bucket.get("services.one").revision)
        assert member.turn(members.BEAT_EVERY + 0.1)
        assert member.membership.alive(members.BEAT_EVERY + 0.2)


def test_neither_status_nor_processes_outlive_a_lease(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)
    with service(nats, tmp_path, specs) as one:
        _until_running(one)
        until(lambda: starts(tmp_path, "capture/shop"), "started")
        raise Killed
    member = _Member(nats, "other")
    with member.bucket:
        seconds = 0.0
        while not member.membership.take(["capture/shop"]):
            seconds += 0.5
            member.turn(seconds)
        status = member.board.status("capture/shop")
        assert (status.state, status.pids, status.owner) == (State.PENDING, (), "")
        value = member.bucket.get("capture.shop.status").value
        assert json.loads(value)["state"] == "running"
        # Back again, the first one ends what it had left of a flow that is the other's now.
        (stray,) = starts(tmp_path, "capture/shop")
        assert lives(stray)
        with service(nats, tmp_path, specs) as one:
            until(lambda: not lives(stray), "ended")
            until(lambda: _all_in(one, State.RUNNING, ("deliver/warehouse",)), "adopted")
            assert len(starts(tmp_path, "capture/shop")) == 1
