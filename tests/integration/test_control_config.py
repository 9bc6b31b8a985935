"""ConfigService over gRPC, on a real NATS server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.layout import ensure_stream
from connectors.jetstream.spec import NatsSpec, StreamSpec
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_refusals import refused
from tests.integration.control_server import RunningControl, empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers

ENVIRONMENT = {
    "SHOP_DSN": "host=shop password=tops3cret",
    "SALT": "tops3cret",
    "API_PATH": "/items",
}
SHOP = config.Source(postgres=config.PostgresSource(dsn="${SHOP_DSN}", tables=["public.*"]))
WAREHOUSE = config.Sink(
    postgres=config.PostgresSink(dsn="host=w user=u password=${SHOP_DSN}"), topics=["db.*"]
)


@pytest.fixture
def nats(nats_server: NatsServer) -> NatsSpec:
    spec = NatsSpec(url=(nats_server.url,))
    empty_bucket(spec)
    return spec


@pytest.fixture
def control(nats: NatsSpec) -> Iterator[RunningControl]:
    with RunningControl(nats, ENVIRONMENT) as running:
        yield running


def _rest(**settings: object) -> config.Source:
    given = config.RestSource(url="https://api.test${API_PATH}", key=["id"])
    given.MergeFrom(config.RestSource(**settings))  # type: ignore[arg-type]
    return config.Source(rest=given)


def _hooks(mapped: config.RequestMap) -> config.Source:
    verify = config.RequestVerification(bearer=["${SALT}"])
    return config.Source(webhook=config.WebhookSource(verify=verify, map=mapped))


def _shop(control: RunningControl, **request: object) -> config.Source:
    return control.config.CreateSource(
        cdc.CreateSourceRequest(source_id="shop", source=SHOP, **request)  # type: ignore[arg-type]
    )


def test_a_source_is_created_read_listed_updated_and_deleted(control: RunningControl) -> None:
    stub = control.config
    created = _shop(control)
    assert created.name == "sources/shop"
    assert created.metadata.generation == 1
    assert created.metadata.updated_by == "local"
    assert created.metadata.create_time.seconds > 1_700_000_000
    assert created.postgres.dsn == "${SHOP_DSN}"
    assert stub.GetSource(cdc.GetSourceRequest(name="sources/shop")) == created
    listed = stub.ListSources(cdc.ListSourcesRequest())
    assert list(listed.sources) == [created]
    assert listed.total_size == 1

    updated = stub.UpdateSource(
        cdc.UpdateSourceRequest(
            source=config.Source(
                name="sources/shop",
                metadata=created.metadata,
                postgres=config.PostgresSource(slot="mine"),
            )
        )
    )
    assert updated.postgres.dsn == "${SHOP_DSN}"
    assert list(updated.postgres.tables) == ["public.*"]
    assert updated.postgres.slot == "mine"
    assert updated.metadata.generation == 2
    assert updated.metadata.etag != created.metadata.etag
    cleared = stub.UpdateSource(
        cdc.UpdateSourceRequest(
            source=config.Source(name="sources/shop"),
            update_mask=FieldMask(paths=["postgres.slot", "postgres.tables"]),
        )
    )
    assert not cleared.postgres.HasField("slot")
    assert not cleared.postgres.tables
    assert cleared.postgres.dsn == "${SHOP_DSN}"
    whole = stub.UpdateSource(
        cdc.UpdateSourceRequest(
            source=config.Source(
                name="sources/shop", mysql=config.MysqlSource(dsn="mysql://u:${SALT}@h")
            ),
            update_mask=FieldMask(paths=["*"]),
        )
    )
    assert whole.WhichOneof("config") == "mysql"

    keep = cdc.DISPOSAL_KEEP
    stub.DeleteSource(
        cdc.DeleteSourceRequest(name="sources/shop", server_objects=keep, stream=keep)
    )
    assert not stub.ListSources(cdc.ListSourcesRequest()).sources
    assert control.store.read().tree == {}


def test_settings_of_several_forms_and_types_are_replaced_as_a_whole(
    control: RunningControl,
) -> None:
    stub = control.config
    found = config.RequestTable(found=config.FoundTable(expression="body.table"))
    pairs = [config.NamedExpression(name=name, expression="body.x") for name in ("b", "a")]
    key = config.RequestKey(expressions=config.Expressions(items=pairs))
    hooks = _hooks(config.RequestMap(table=found, key=key))
    created = stub.CreateSource(cdc.CreateSourceRequest(source_id="hooks", source=hooks))
    assert created.webhook == hooks.webhook
    named = config.RequestTable(name="events")
    change = _hooks(config.RequestMap(table=named, key=config.RequestKey(fields=config.Names())))
    change.name = created.name
    updated = stub.UpdateSource(cdc.UpdateSourceRequest(source=change))
    assert updated.webhook == change.webhook
    change.webhook.map.table.CopyFrom(found)
    masked = stub.UpdateSource(
        cdc.UpdateSourceRequest(source=change, update_mask=FieldMask(paths=["webhook.map.table"]))
    )
    assert masked.webhook == change.webhook
    inside = cdc.UpdateSourceRequest(
        source=change, update_mask=FieldMask(paths=["webhook.map.table.found"])
    )
    assert refused(stub.UpdateSource, inside).fields == ["update_mask"]

    basic = config.RestAuth(basic=config.BasicAuth(user="u", password="${SALT}"))
    polled = _rest(auth=basic, max_deletions=0.25, query={"per_page": "50"})
    created = stub.CreateSource(cdc.CreateSourceRequest(source_id="crm", source=polled))
    assert created.rest == polled.rest
    token = config.RestAuth(bearer=config.BearerAuth(token="${SALT}"))
    updated = stub.UpdateSource(
        cdc.UpdateSourceRequest(
            source=config.Source(name=created.name, rest=config.RestSource(auth=token))
        )
    )
    polled.rest.auth.CopyFrom(token)
    assert updated.rest == polled.rest


def test_a_sink_is_created_read_listed_updated_and_deleted(control: RunningControl) -> None:
    stub = control.config
    _shop(control)
    given = config.Sink()
    given.CopyFrom(WAREHOUSE)
    given.sources.append("shop")
    given.start.end = True
    given.transform.add().mask.CopyFrom(
        config.Mask(fields=["a"], method=config.MASK_METHOD_SHA256, salt="${SALT}")
    )
    created = stub.CreateSink(cdc.CreateSinkRequest(sink_id="warehouse", sink=given))
    assert created.transform[0].mask.salt == "${SALT}"
    assert stub.GetSink(cdc.GetSinkRequest(name="sinks/warehouse")) == created
    assert list(stub.ListSinks(cdc.ListSinksRequest()).sinks) == [created]
    updated = stub.UpdateSink(
        cdc.UpdateSinkRequest(
            sink=config.Sink(name="sinks/warehouse", filter="op != 'd'", topics=["db.users"]),
            update_mask=FieldMask(paths=["filter", "topics", "transform"]),
        )
    )
    assert (updated.filter, list(updated.topics)) == ("op != 'd'", ["db.users"])
    assert not updated.transform
    assert list(updated.sources) == ["shop"]
    stub.DeleteSink(cdc.DeleteSinkRequest(name="sinks/warehouse", etag=updated.metadata.etag))
    assert not stub.ListSinks(cdc.ListSinksRequest()).sinks


def test_a_pipeline_is_created_read_listed_updated_and_deleted(control: RunningControl) -> None:
    stub = control.config
    given = config.Pipeline(tables=["public.users"], topic="db.users", key=["id"])
    created = stub.CreatePipeline(cdc.CreatePipelineRequest(pipeline_id="users", pipeline=given))
    assert stub.GetPipeline(cdc.GetPipelineRequest(name="pipelines/users")) == created
    assert list(stub.ListPipelines(cdc.ListPipelinesRequest()).pipelines) == [created]
    updated = stub.UpdatePipeline(
        cdc.UpdatePipelineRequest(
            pipeline=config.Pipeline(
                name="pipelines/users", throttle=config.Throttle(every="1m", changes=3)
            )
        )
    )
    assert updated.throttle.every == "1m"
    assert updated.topic == "db.users"
    stub.DeletePipeline(cdc.DeletePipelineRequest(name="pipelines/users"))
    assert control.store.read().tree == {}


def test_a_topic_is_created_read_listed_updated_and_deleted(control: RunningControl) -> None:
    stub = control.config
    created = stub.CreateTopic(
        cdc.CreateTopicRequest(topic_id="db.users", topic=config.Topic(partitions=4))
    )
    assert created.name == "topics/db.users"
    assert stub.GetTopic(cdc.GetTopicRequest(name="topics/db.users")) == created
    assert list(stub.ListTopics(cdc.ListTopicsRequest()).topics) == [created]
    updated = stub.UpdateTopic(
        cdc.UpdateTopicRequest(topic=config.Topic(name="topics/db.users", partitions=8))
    )
    assert updated.partitions == 8
    stub.DeleteTopic(cdc.DeleteTopicRequest(name="topics/db.users"))
    assert refused(stub.GetTopic, cdc.GetTopicRequest(name="topics/db.users")).code is (
        grpc.StatusCode.NOT_FOUND
    )


@pytest.mark.parametrize(
    ("source", "field", "reason"),
    [
        (config.Source(postgres=config.PostgresSource(dsn="host=a password=x")),
         "source.postgres.dsn", "CONFIG_PLAINTEXT_SECRET"),
        (config.Source(postgres=config.PostgresSource(dsn="${UNSET}")),
         "source.postgres.dsn", "CONFIG_UNSET_VARIABLE"),
        (config.Source(mysql=config.MysqlSource(dsn="${SHOP_DSN}")),
         "source.mysql.dsn", "MYSQL_DSN"),
        (config.Source(postgres=config.PostgresSource(dsn="${SHOP_DSN}", tables=["a.b.c"])),
         "source.postgres.tables", "POSTGRES_TABLE_PATTERN"),
        (config.Source(), "source", "CONFIG_UNKNOWN_TYPE"),
        (config.Source(mysql=config.MysqlSource(dsn="${SHOP_DSN}", server_id=-1)),
         "source.mysql.server_id", "CONFIG_INVALID"),
        (_rest(query={"key": "hunter2"}), "source.rest.query.key", "CONFIG_PLAINTEXT_SECRET"),
        (_rest(auth=config.RestAuth(bearer=config.BearerAuth(token="hunter2"))),
         "source.rest.auth.bearer.token", "CONFIG_PLAINTEXT_SECRET"),
        (_rest(auth=config.RestAuth()), "source.rest.auth", "CONFIG_INVALID"),
        (_rest(records="a..b"), "source.rest.records", "CONFIG_INVALID"),
        (_rest(pagination=config.RestPagination(page=config.NumberedPages(start=-1))),
         "source.rest.pagination.page.start", "CONFIG_INVALID"),
        (_hooks(config.RequestMap(table=config.RequestTable())),
         "source.webhook.map.table", "CONFIG_INVALID"),
        (_hooks(config.RequestMap(op=config.RequestOp(found=config.FoundOp(expression="a..b")))),
         "source.webhook.map.op.found.expression", "CONFIG_INVALID"),
    ],
)  # fmt: skip
def test_a_wrong_source_is_refused_with_the_field(
    control: RunningControl, source: config.Source, field: str, reason: str
) -> None:
    request = cdc.CreateSourceRequest(source_id="shop", source=source)
    found = refused(control.config.CreateSource, request)
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (found.fields, found.reason) == ([field], reason)
    assert control.store.read().revision == 0


def test_a_wrong_sink_or_name_is_refused_with_the_field(control: RunningControl) -> None:
    stub = control.config
    _shop(control)
    cases = {
        "sink.sources": config.Sink(sources=["shop", "nobody"]),
        "sink.transform[0].drop.fields": config.Sink(
            transform=[config.Transform(drop=config.Drop())]
        ),
        "sink.transform[0].mask.salt": config.Sink(
            transform=[
                config.Transform(
                    mask=config.Mask(fields=["a"], method=config.MASK_METHOD_SHA256, salt="plain")
                )
            ]
        ),
        "sink.batch.size": config.Sink(batch=config.Batch(size=5000)),
        "sink.webhook.url": config.Sink(webhook=config.WebhookSink(url="https://a/secret")),
    }
    for field, wrong in cases.items():
        sink = config.Sink()
        sink.CopyFrom(WAREHOUSE)
        sink.MergeFrom(wrong)
        request = cdc.CreateSinkRequest(sink_id="warehouse", sink=sink)
        assert refused(stub.CreateSink, request).fields == [field]
    request = cdc.CreateSinkRequest(sink_id="No Name", sink=WAREHOUSE)
    assert refused(stub.CreateSink, request).fields == ["sink_id"]
    nothing = refused(stub.CreateSink, cdc.CreateSinkRequest(sink_id="warehouse"))
    assert nothing.fields == ["sink"]
    wrong_name = refused(stub.GetSink, cdc.GetSinkRequest(name="sources/shop"))
    assert (wrong_name.code, wrong_name.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["name"])
    wrong_mask = cdc.UpdateSourceRequest(
        source=config.Source(name="sources/shop"),
        update_mask=FieldMask(paths=["postgres.dns"]),
    )
    assert refused(stub.UpdateSource, wrong_mask).fields == ["update_mask"]


def test_what_exists_is_not_created_again(control: RunningControl) -> None:
    _shop(control)
    request = cdc.CreateSourceRequest(source_id="shop", source=SHOP)
    assert refused(control.config.CreateSource, request).code is grpc.StatusCode.ALREADY_EXISTS


def test_validate_only_changes_nothing(control: RunningControl) -> None:
    shown = _shop(control, validate_only=True)
    assert shown.name == "sources/shop"
    assert control.store.read().revision == 0
    _shop(control)
    keep = cdc.DISPOSAL_KEEP
    control.config.DeleteSource(
        cdc.DeleteSourceRequest(
            name="sources/shop", validate_only=True, server_objects=keep, stream=keep
        )
    )
    assert "shop" in str(control.store.read().tree)


def test_a_repeated_request_gets_the_first_answer_from_any_service(
    control: RunningControl, nats: NatsSpec
) -> None:
    identity = str(uuid4())
    first = _shop(control, request_id=identity)
    control.config.UpdateSource(
        cdc.UpdateSourceRequest(
            source=config.Source(name="sources/shop", postgres=config.PostgresSource(slot="x"))
        )
    )
    with RunningControl(nats, ENVIRONMENT) as other:
        assert _shop(other, request_id=identity) == first
        another = cdc.CreateSourceRequest(source_id="crm", source=SHOP, request_id=identity)
        assert refused(other.config.CreateSource, another).fields == ["request_id"]
    no_uuid = cdc.CreateSourceRequest(source_id="crm", source=SHOP, request_id="again")
    assert refused(control.config.CreateSource, no_uuid).fields == ["request_id"]


def test_of_two_clients_with_the_same_etag_one_is_refused(
    control: RunningControl, nats: NatsSpec
) -> None:
    etag = _shop(control).metadata.etag
    outcomes: list[grpc.StatusCode] = []

    def update(service: RunningControl, slot: str) -> None:
        try:
            service.config.UpdateSource(
                cdc.UpdateSourceRequest(
                    source=config.Source(
                        name="sources/shop",
                        metadata=config.Metadata(etag=etag),
                        postgres=config.PostgresSource(slot=slot),
                    )
                )
            )
            outcomes.append(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            outcomes.append(error.code())

    with RunningControl(nats, ENVIRONMENT) as other:
        services = [control, other, control, other]
        threads = [
            threading.Thread(target=update, args=(service, f"slot{number}"))
            for number, service in enumerate(services)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcome.name for outcome in outcomes) == ["ABORTED", "ABORTED", "ABORTED", "OK"]
    assert (
        control.config.GetSource(cdc.GetSourceRequest(name="sources/shop")).metadata.generation == 2
    )
    stale = cdc.DeleteSourceRequest(
        name="sources/shop", etag=etag, server_objects=cdc.DISPOSAL_KEEP, stream=cdc.DISPOSAL_KEEP
    )
    assert refused(control.config.DeleteSource, stale).code is grpc.StatusCode.ABORTED


def test_writers_without_etags_all_succeed(control: RunningControl, nats: NatsSpec) -> None:
    def create(service: RunningControl, number: int) -> None:
        topic = config.Topic(partitions=number)
        service.config.CreateTopic(cdc.CreateTopicRequest(topic_id=f"t.t{number}", topic=topic))

    with RunningControl(nats, ENVIRONMENT) as other:
        threads = [
            threading.Thread(target=create, args=(control if number % 2 else other, number))
            for number in range(1, 21)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert control.config.ListTopics(cdc.ListTopicsRequest()).total_size == 20


def test_lists_are_paged_by_stable_tokens(control: RunningControl) -> None:
    stub = control.config
    for number in range(5):
        stub.CreateTopic(cdc.CreateTopicRequest(topic_id=f"t.{number}", topic=config.Topic()))
    first = stub.ListTopics(cdc.ListTopicsRequest(page_size=2))
    assert [one.name for one in first.topics] == ["topics/t.0", "topics/t.1"]
    assert first.total_size == 5
    stub.DeleteTopic(cdc.DeleteTopicRequest(name="topics/t.1"))
    second = stub.ListTopics(cdc.ListTopicsRequest(page_size=2, page_token=first.next_page_token))
    assert [one.name for one in second.topics] == ["topics/t.2", "topics/t.3"]
    last = stub.ListTopics(cdc.ListTopicsRequest(page_size=2, page_token=second.next_page_token))
    assert [one.name for one in last.topics] == ["topics/t.4"]
    assert not last.next_page_token
    foreign = cdc.ListSinksRequest(page_token=first.next_page_token)
    assert refused(stub.ListSinks, foreign).fields == ["page_token"]
    assert refused(stub.ListSinks, cdc.ListSinksRequest(page_size=-1)).fields == ["page_size"]


def test_a_source_that_others_name_is_not_deleted(control: RunningControl) -> None:
    stub = control.config
    _shop(control)
    sink = config.Sink()
    sink.CopyFrom(WAREHOUSE)
    sink.sources.append("shop")
    stub.CreateSink(cdc.CreateSinkRequest(sink_id="warehouse", sink=sink))
    stub.CreatePipeline(
        cdc.CreatePipelineRequest(pipeline_id="p", pipeline=config.Pipeline(sources=["shop"]))
    )
    keep = cdc.DISPOSAL_KEEP
    request = cdc.DeleteSourceRequest(name="sources/shop", server_objects=keep, stream=keep)
    found = refused(stub.DeleteSource, request)
    assert found.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "pipelines/p, sinks/warehouse" in found.message
    unsaid = cdc.DeleteSourceRequest(name="sources/shop", server_objects=keep)
    assert refused(stub.DeleteSource, unsaid).fields == ["stream"]


def test_a_stream_goes_only_when_its_flow_has_stopped(
    control: RunningControl, nats: NatsSpec
) -> None:
    _shop(control)
    with connect(nats) as connection:
        ensure_stream(connection, StreamSpec(), "CDC_shop", "CDC.shop.>")
    control.flows.runs.add("capture/shop")
    request = cdc.DeleteSourceRequest(
        name="sources/shop", server_objects=cdc.DISPOSAL_KEEP, stream=cdc.DISPOSAL_DROP
    )
    call = control.config.DeleteSource.future(request)
    with connect(nats) as connection:
        while control.flows.asked != ["capture/shop"]:
            threading.Event().wait(0.01)
        assert api.stream_info(connection, "CDC_shop") is not None
        again = cdc.CreateSourceRequest(source_id="shop", source=SHOP)
        found = refused(control.config.CreateSource, again)
        assert (found.reason, found.retry) == ("CONTROL_DISPOSING", True)
        control.flows.runs.clear()
        call.result(30)
        assert api.stream_info(connection, "CDC_shop") is None
    assert control.store.read().document.disposals == {}
    _shop(control)


def test_another_service_removes_what_the_first_one_did_not(
    control: RunningControl, nats: NatsSpec
) -> None:
    _shop(control)
    with connect(nats) as connection:
        ensure_stream(connection, StreamSpec(), "CDC_shop", "CDC.shop.>")
        control.flows.runs.add("capture/shop")
        request = cdc.DeleteSourceRequest(
            name="sources/shop", server_objects=cdc.DISPOSAL_KEEP, stream=cdc.DISPOSAL_DROP
        )
        call = control.config.DeleteSource.future(request)
        while control.flows.asked != ["capture/shop"]:
            threading.Event().wait(0.01)
        call.cancel()
        with RunningControl(nats, ENVIRONMENT) as other:
            other.run(other.service.disposals.dispose("shop"))
        assert api.stream_info(connection, "CDC_shop") is None
    control.flows.runs.clear()


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
    _shop(control)
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
