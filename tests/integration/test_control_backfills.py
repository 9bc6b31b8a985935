"""Backfills on a real server: what is asked for, what is told, and what is refused."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from connectors.contracts.backfills import BackfillRequest, BackfillStatus, Stage, Wish
from connectors.jetstream import backfills
from connectors.jetstream.backfills import JetStreamBackfills
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as pb
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.server.callers import Caller, Role, caller
from control.server.statuses import ApiError
from control.services.backfill_service import BackfillService
from control.services.calls import Repetitions, Workers
from tests.integration.control_explorer import FixedSpecs, serving
from tests.integration.control_refusals import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from control.servers.nats import NatsServer

    Stub = cdc_pb2_grpc.BackfillServiceStub

pytestmark = pytest.mark.servers

TREE = {
    "sources": {
        "shop": {"type": "postgres"},
        "once": {"type": "postgres", "snapshot": "only"},
        "api": {"type": "rest"},
    },
    "sinks": {"warehouse": {"type": "postgres", "from": ["shop"]}, "other": {"from": ["api"]}},
}


@pytest.fixture
def spec(nats_server: NatsServer) -> NatsSpec:
    found = NatsSpec(url=(nats_server.url,))
    with connect(found) as connection:
        for source in ("shop", "once"):
            backfills.forget(connection, source)
    return found


@pytest.fixture
def stub(spec: NatsSpec) -> Iterator[Stub]:
    workers = Workers(2)
    service = BackfillService(spec, FixedSpecs(TREE), workers, Repetitions(spec))
    with serving(service.register) as channel:
        yield cdc_pb2_grpc.BackfillServiceStub(channel)
    workers.close()


def create(name: str = "b1", source: str = "shop", **fields: object) -> pb.CreateBackfillRequest:
    given = pb.Backfill(**({"tables": ["public.*"]} | fields))  # type: ignore[arg-type]
    return pb.CreateBackfillRequest(parent=f"sources/{source}", backfill_id=name, backfill=given)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (create(tables=[]), "backfill.tables", "CONTROL_TABLES"),
        (create(tables=["orders"]), "backfill.tables[0]", "CONTROL_TABLES"),
        (create("Big"), "backfill_id", "CONTROL_NAME"),
        (create("initial"), "backfill_id", "CONTROL_NAME"),
        (create(sink="sinks/none"), "backfill.sink", "CONTROL_SINK"),
        (create(sink="other"), "backfill.sink", "CONTROL_SINK"),
        (create(max_rows_per_second=-1), "backfill.max_rows_per_second", "CONTROL_RATE"),
        (create(where="x" * 20_000), "backfill.where", "CONTROL_WHERE"),
        (create(source="api"), "", "CONTROL_NO_BACKFILLS"),
        (create(source="once"), "", "CONTROL_SNAPSHOT_ONLY"),
        (create(source="none"), "", "CONTROL_NOT_FOUND"),
    ],
)
def test_what_cannot_be_asked_for(
    stub: Stub, request_: pb.CreateBackfillRequest, field: str, reason: str
) -> None:
    found = refused(stub.CreateBackfill, request_)
    assert (found.reason, found.fields) == (reason, [field] if field else [])


def test_what_is_asked_for_is_told_and_changed(stub: Stub, spec: NatsSpec) -> None:
    first = create("one", where=" id > 1 ", sink="sinks/warehouse", max_rows_per_second=5)
    first.request_id = str(uuid4())
    made = stub.CreateBackfill(first)
    assert stub.CreateBackfill(first) == made
    assert refused(stub.CreateBackfill, create("one")).code is grpc.StatusCode.ALREADY_EXISTS
    assert (made.name, made.where, made.sink) == (
        "sources/shop/backfills/one",
        "id > 1",
        "sinks/warehouse",
    )
    assert (made.state, made.max_rows_per_second) == (pb.Backfill.STATE_QUEUED, 5)
    unnamed = stub.CreateBackfill(create(""))
    dry = create("dry")
    dry.validate_only = True
    stub.CreateBackfill(dry)
    listed = stub.ListBackfills(pb.ListBackfillsRequest(parent="sources/shop", page_size=1))
    assert (listed.backfills[0], listed.total_size) == (made, 2)
    rest = stub.ListBackfills(
        pb.ListBackfillsRequest(parent="sources/shop", page_token=listed.next_page_token)
    )
    assert [each.name for each in rest.backfills] == [unnamed.name]

    changed = pb.Backfill(name=made.name, max_rows_per_second=9)
    stub.UpdateBackfill(pb.UpdateBackfillRequest(backfill=changed))
    masked = pb.UpdateBackfillRequest(backfill=changed, update_mask=FieldMask(paths=["where"]))
    assert refused(stub.UpdateBackfill, masked).reason == "CONTROL_MASK"
    paused = stub.PauseBackfill(pb.PauseBackfillRequest(name=made.name))
    assert (paused.state, paused.max_rows_per_second) == (pb.Backfill.STATE_PAUSED, 9)
    resumed = stub.ResumeBackfill(pb.ResumeBackfillRequest(name=made.name))
    assert resumed.state == pb.Backfill.STATE_QUEUED
    assert stub.CancelBackfill(pb.CancelBackfillRequest(name=made.name)).state == (
        pb.Backfill.STATE_CANCELLED
    )
    again = refused(stub.ResumeBackfill, pb.ResumeBackfillRequest(name=made.name))
    assert again.reason == "CONTROL_BACKFILL_OVER"
    initial = pb.PauseBackfillRequest(name="sources/shop/backfills/initial")
    assert refused(stub.PauseBackfill, initial).reason == "CONTROL_INITIAL_SNAPSHOT"
    missing = pb.GetBackfillRequest(name="sources/shop/backfills/none")
    assert refused(stub.GetBackfill, missing).code is grpc.StatusCode.NOT_FOUND


def test_what_the_flow_tells_is_shown(stub: Stub, spec: NatsSpec) -> None:
    stub.CreateBackfill(create("one"))
    name = "sources/shop/backfills/one"
    with closing(JetStreamBackfills(spec, "shop")) as flow:
        until(lambda: [each.id for each in flow.open()] == ["one"])
        told = BackfillStatus(Stage.RUNNING, 10, 100, "public.t", 5.0, 18.0, started=1)
        flow.tell("one", told)
        flow.tell("initial", BackfillStatus(Stage.RUNNING, 7))
        until(lambda: stub.GetBackfill(pb.GetBackfillRequest(name=name)).rows == 10)
        shown = stub.GetBackfill(pb.GetBackfillRequest(name=name))
        assert (shown.state, shown.estimated_rows) == (pb.Backfill.STATE_RUNNING, 100)
        assert (shown.rows_per_second, shown.time_left.seconds) == (5.0, 18)
        pausing = stub.PauseBackfill(pb.PauseBackfillRequest(name=name))
        assert pausing.state == pb.Backfill.STATE_PAUSING
        until(lambda: flow.open()[0].wish is Wish.PAUSE)
        flow.tell("one", BackfillStatus(Stage.FAILED, error="no such column"))
        until(lambda: not flow.open())
        # A flow that was replaced tells late.
        flow.tell("one", BackfillStatus(Stage.RUNNING, 11))
    shown = stub.GetBackfill(pb.GetBackfillRequest(name=name))
    assert (shown.state, shown.error) == (pb.Backfill.STATE_FAILED, "no such column")
    listed = stub.ListBackfills(pb.ListBackfillsRequest(parent="sources/shop")).backfills
    assert [(each.name, each.rows) for each in listed] == [
        ("sources/shop/backfills/initial", 7),
        (name, 0),
    ]
    over = refused(stub.CancelBackfill, pb.CancelBackfillRequest(name=name))
    assert over.reason == "CONTROL_BACKFILL_OVER"


def test_of_two_who_ask_for_the_same_one_wins(spec: NatsSpec) -> None:
    with connect(spec) as connection:
        request = BackfillRequest("b", 1, ("public.*",))
        assert backfills.write_request(connection, "shop", request, 0) is not None
        assert backfills.write_request(connection, "shop", request, 0) is None


def test_the_latest_of_those_that_are_over_are_remembered(spec: NatsSpec) -> None:
    with connect(spec) as connection:
        for number in range(4):
            request = BackfillRequest(f"b{number}", number, ("public.*",))
            assert backfills.write_request(connection, "shop", request, 0)
        with closing(JetStreamBackfills(spec, "shop")) as flow:
            for number in range(3):
                flow.tell(f"b{number}", BackfillStatus(Stage.DONE))
            until(lambda: [each.id for each in flow.open()] == ["b3"])
        backfills.prune(connection, "shop", 2)
        assert [each.id for each in backfills.read_all(connection, "shop")] == ["b1", "b2", "b3"]


def test_a_condition_is_for_admins(spec: NatsSpec) -> None:
    service = BackfillService(spec, FixedSpecs(TREE), Workers(1), Repetitions(spec))

    async def as_operator() -> None:
        caller.set(Caller("otto", Role.OPERATOR))
        # It is refused before the context is used.
        await service.CreateBackfill(create(where="id > 1"), None)  # type: ignore[arg-type]

    with pytest.raises(ApiError, match="admin is needed"):
        asyncio.run(as_operator())
