"""ConfigService over gRPC, on a real NATS server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_refusals import refused
from tests.integration.control_registered import SHOP, WAREHOUSE, create_shop

if TYPE_CHECKING:
    from tests.integration.control_server import RunningControl

pytestmark = pytest.mark.servers


def _rest(**settings: object) -> config.Source:
    given = config.RestSource(url="https://api.test${API_PATH}", key=["id"])
    given.MergeFrom(config.RestSource(**settings))  # type: ignore[arg-type]
    return config.Source(rest=given)


def _hooks(mapped: config.RequestMap) -> config.Source:
    verify = config.RequestVerification(bearer=["${SALT}"])
    return config.Source(webhook=config.WebhookSource(verify=verify, map=mapped))


def test_a_source_is_created_read_listed_updated_and_deleted(control: RunningControl) -> None:
    stub = control.config
    created = create_shop(control)
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
    create_shop(control)
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
    create_shop(control)
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
    create_shop(control)
    request = cdc.CreateSourceRequest(source_id="shop", source=SHOP)
    assert refused(control.config.CreateSource, request).code is grpc.StatusCode.ALREADY_EXISTS


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
