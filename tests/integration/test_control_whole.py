"""Plan, apply, revisions and rolling back over gRPC, on a real NATS server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest

from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_refusals import refused
from tests.integration.control_registered import create_shop

if TYPE_CHECKING:
    from tests.integration.control_server import RunningControl

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
