"""Plan, apply, revisions and rolling back over gRPC, on a real NATS server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.layout import ensure_stream
from connectors.jetstream.spec import StreamSpec
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_refusals import refused
from tests.integration.control_registered import create_shop
from tests.integration.control_server import RunningControl

if TYPE_CHECKING:
    from connectors.jetstream.spec import NatsSpec

pytestmark = pytest.mark.servers


YAML = """
nats: {url: "nats://elsewhere:1"}
sources:
  shop: {type: postgres, dsn: "${SHOP_DSN}", tables: ["public.*"]}
topics: {db.users: {partitions: 2}}
pipelines:
  users: {from: [shop], tables: [public.users], transform: [{drop: [password]}], topic: db.users}
sinks:
  warehouse: {type: postgres, dsn: "host=w password=${SHOP_DSN}", topics: ["db.*"], start: end}
dead_letters: {max_age: 7d}
"""

SOURCES = """
sources:
  shop: {type: postgres, dsn: "${SHOP_DSN}", slot: own}
  crm: {type: postgres, dsn: "${CRM_DSN:-}"}
  api: {type: mysql, dsn: "mysql://u:${SALT}@127.0.0.1:1/"}
"""


def test_a_plan_tells_what_will_change_and_is_applied_by_its_hash(control: RunningControl) -> None:
    stub = control.config
    plan = stub.Plan(cdc.PlanRequest(yaml=YAML))
    assert {one.name: one.action for one in plan.changes} == dict.fromkeys(
        [
            "sources/shop", "topics/db.users", "pipelines/users", "sinks/warehouse",
            "settings/dead_letters",
        ],
        cdc.ACTION_CREATE,
    )  # fmt: skip
    assert list(plan.started_flows) == ["flows/capture/shop", "flows/deliver/warehouse"]
    assert control.store.read().revision == 0

    identity = str(uuid4())
    request = cdc.ApplyRequest(yaml=YAML, hash=plan.hash, request_id=identity)
    applied = stub.Apply(request)
    assert applied.revision.revision == control.store.read().revision
    assert applied.plan == plan
    assert stub.Apply(request) == applied

    again = stub.Plan(cdc.PlanRequest(yaml=YAML))
    assert not again.changes
    assert not again.restarted_flows

    changed = YAML.replace("drop: [password]", "drop: [password, email]")
    plan = stub.Plan(cdc.PlanRequest(yaml=changed))
    assert [(one.name, one.action) for one in plan.changes] == [
        ("pipelines/users", cdc.ACTION_UPDATE)
    ]
    assert "+    - email" in plan.changes[0].diff
    assert list(plan.restarted_flows) == ["flows/capture/shop"]
    stub.DeleteTopic(cdc.DeleteTopicRequest(name="topics/db.users"))
    stale = refused(stub.Apply, cdc.ApplyRequest(yaml=changed, hash=plan.hash))
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "CONTROL_STALE_PLAN")

    emptied = stub.Plan(cdc.PlanRequest(yaml=""))
    assert list(emptied.stopped_flows) == ["flows/capture/shop", "flows/deliver/warehouse"]
    stub.Apply(cdc.ApplyRequest(yaml="", hash=emptied.hash))
    assert control.store.read().tree == {}


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("tables: [public.users]", "tabels: [public.users]", "pipelines.users.tabels"),
        ("from: [shop]", "from: [shoq]", "pipelines.users.from"),
        ("password=${SHOP_DSN}", "password=plain", "sinks.warehouse.dsn"),
        ("partitions: 2", "partitions: '${SALT}'", "topics.db.users.partitions"),
        ("sources:", "sauces:", "sauces"),
        ("sources:", "sources: [", "waxtap.yaml"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(
    control: RunningControl, old: str, new: str, field: str
) -> None:
    found = refused(control.config.Plan, cdc.PlanRequest(yaml=YAML.replace(old, new)))
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


def test_revisions_tell_who_when_and_what_and_are_rolled_back_to(control: RunningControl) -> None:
    stub = control.config
    create_shop(control)
    stub.CreateTopic(cdc.CreateTopicRequest(topic_id="db.a", topic=config.Topic(partitions=2)))
    stub.DeleteTopic(cdc.DeleteTopicRequest(name="topics/db.a"))
    listed = stub.ListRevisions(cdc.ListRevisionsRequest(page_size=2))
    assert len(listed.revisions) == 2
    latest, before = listed.revisions
    assert "-partitions: 2" in latest.diff
    assert "+partitions: 2" in before.diff
    assert before.author == "local"
    assert before.create_time.seconds > 1_700_000_000
    rest = stub.ListRevisions(
        cdc.ListRevisionsRequest(page_size=2, page_token=listed.next_page_token)
    )
    assert len(rest.revisions) == 1
    assert not rest.next_page_token

    identity = str(uuid4())
    request = cdc.RollBackRequest(revision=before.revision, request_id=identity)
    rolled = stub.RollBack(request)
    assert rolled.revision > latest.revision
    assert "+partitions: 2" in rolled.diff
    assert stub.RollBack(request) == rolled
    assert stub.GetTopic(cdc.GetTopicRequest(name="topics/db.a")).partitions == 2
    gone = refused(stub.RollBack, cdc.RollBackRequest(revision=10**6))
    assert gone.code is grpc.StatusCode.NOT_FOUND


def test_what_deleted_sources_leave_behind_is_told_or_dropped(
    control: RunningControl, control_nats: NatsSpec
) -> None:
    stub = control.config
    plan = stub.Plan(cdc.PlanRequest(yaml=SOURCES))
    assert not plan.left_behind
    applied = stub.Apply(cdc.ApplyRequest(yaml=SOURCES, hash=plan.hash))
    with connect(control_nats) as connection:
        ensure_stream(connection, StreamSpec(), "CDC_shop", "CDC.shop.>")
        # One whose server keeps nothing and that has no stream yet leaves nothing.
        plan = stub.Plan(cdc.PlanRequest(yaml=""))
        assert [one.name for one in plan.left_behind] == ["sources/crm", "sources/shop"]
        crm, shop = plan.left_behind
        assert list(crm.server_objects) == ["slot waxtap_crm", "publication waxtap_crm"]
        assert list(shop.server_objects) == ["slot own", "publication waxtap_shop"]
        assert (crm.stream, shop.stream) == ("", "CDC_shop")
        assert "--server-objects drop --stream drop" in shop.cure
        # Where a reference cannot be resolved any more, there is something still.
        with RunningControl(control_nats, {}) as other:
            *_, shop = other.config.Plan(cdc.PlanRequest(yaml="")).left_behind
        assert list(shop.server_objects) == ["what it has made there"]

        dropped = cdc.ApplyRequest(
            yaml="", hash=plan.hash, server_objects=cdc.DISPOSAL_KEEP, stream=cdc.DISPOSAL_DROP
        )
        emptied = stub.Apply(dropped)
        assert control.flows.asked.count("capture/shop") == 1
        assert api.stream_info(connection, "CDC_shop") is None
        told = emptied.plan.left_behind
        assert {one.name: one.stream for one in told} == {"sources/crm": "", "sources/shop": ""}
        assert f"roll back to revision {applied.revision.revision}" in told[1].cure
        assert "waxtap delete sources/shop " in told[1].cure

        # An earlier revision brings sources back, or takes them away.
        number = applied.revision.revision
        assert not stub.RollBack(cdc.RollBackRequest(revision=number)).left_behind
        ensure_stream(connection, StreamSpec(), "CDC_shop", "CDC.shop.>")
        empty = cdc.RollBackRequest(revision=emptied.revision.revision)
        left = {one.name: one.stream for one in stub.RollBack(empty).left_behind}
        assert left == {"sources/crm": "", "sources/shop": "CDC_shop"}
        stub.RollBack(cdc.RollBackRequest(revision=number))
        empty.stream = cdc.DISPOSAL_DROP
        left = {one.name: one.stream for one in stub.RollBack(empty).left_behind}
        assert left == {"sources/crm": "", "sources/shop": ""}
        assert api.stream_info(connection, "CDC_shop") is None
    assert control.store.read().document.disposals == {}
