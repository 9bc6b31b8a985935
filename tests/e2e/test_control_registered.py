"""An empty service is told everything by its API: a source, two sinks, a change while rows flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.pb.cdc.v1 import config_pb2 as config
from tests.contract.webhook_sink import SECRET, Consumer
from tests.e2e.control_service import ControlService
from tests.e2e.flows import await_capture
from tests.e2e.items import agree, insert, wait_for
from tests.e2e.test_control_kills import Load
from tests.e2e.test_webhook import rows
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from tests.e2e.deployment import Deployment

pytestmark = [pytest.mark.servers, pytest.mark.slow]

# Rows that are counted must not come from their table as well.
SHOP = config.Source(
    postgres=config.PostgresSource(
        dsn="${SHOP_DSN}", tables=["public.*"], snapshot=config.SNAPSHOT_NEVER
    )
)
WAREHOUSE = config.Sink(postgres=config.PostgresSink(dsn="${WAREHOUSE_DSN}"), topics=["db.*"])
HOOK = config.Sink(
    webhook=config.WebhookSink(
        url="${HOOK_URL}",
        secrets=["${HOOK_SECRET}"],
        allow_http=True,
        allow_networks=["127.0.0.1/32"],
    ),
    topics=["db.*"],
)
_OF_ONE = 32


def test_a_source_and_two_sinks_are_registered_and_one_is_changed_while_rows_flow(
    deployment: Deployment,
) -> None:
    consumer, lists = Consumer(), list[Request]()

    def answer(request: Request) -> Reply:
        if request.body.startswith(b"["):
            lists.append(request)
        return consumer(request)

    with Receiver(answer) as receiver:
        secrets = {"HOOK_URL": receiver.url, "HOOK_SECRET": SECRET}
        control = ControlService(deployment, "only", environment=secrets)
        with control, control.channel() as channel:
            wait_for(control.ready, "the service")
            stub = cdc_pb2_grpc.ConfigServiceStub(channel)
            flows = cdc_pb2_grpc.FlowServiceStub(channel)

            def flow(name: str) -> cdc.Flow:
                return flows.GetFlow(cdc.GetFlowRequest(name=f"flows/deliver/{name}"))

            stub.CreateSource(cdc.CreateSourceRequest(source_id="shop", source=SHOP))
            stub.CreateSink(cdc.CreateSinkRequest(sink_id="warehouse", sink=WAREHOUSE))
            made = stub.CreateSink(cdc.CreateSinkRequest(sink_id="hook", sink=HOOK))
            await_capture(deployment)
            insert(deployment, 100_001, 100_200)
            agree(deployment)
            wait_for(lambda: consumer.rows == rows(deployment), "rows at the endpoint")
            assert not lists
            before = {name: list(flow(name).pids) for name in ("warehouse", "hook")}

            with Load(deployment) as load:
                wait_for(lambda: load.transactions > 10, "load")
                made.webhook.body = config.WEBHOOK_BODY_LIST
                changed = stub.UpdateSink(
                    cdc.UpdateSinkRequest(sink=made, update_mask=FieldMask(paths=["webhook.body"]))
                )
                assert changed.metadata.generation == 2
                wait_for(lambda: list(flow("hook").pids) not in ([], before["hook"]), "restart")
                wait_for(lambda: len(lists) > 3, "requests of the new form")
            agree(deployment)
            wait_for(lambda: consumer.rows == rows(deployment), "all rows at the endpoint")
            assert list(flow("warehouse").pids) == before["warehouse"]
            assert (flow("hook").restarts, consumer.overtaken) == (0, 0)
            _watch_too_often(flows)

            drop = cdc.DISPOSAL_DROP
            stub.DeleteSource(
                cdc.DeleteSourceRequest(name="sources/shop", server_objects=drop, stream=drop)
            )
            with psycopg.connect(deployment.source_dsn) as connection:
                assert connection.execute("SELECT FROM pg_replication_slots").fetchall() == []
            with connect(NatsSpec(url=(deployment.nats.url,))) as nats:
                assert api.stream_info(nats, "CDC_shop") is None


def _watch_too_often(flows: cdc_pb2_grpc.FlowServiceStub) -> None:
    watches = [flows.WatchFlows(cdc.WatchFlowsRequest()) for _ in range(_OF_ONE)]
    for each in watches:
        next(each)
    with pytest.raises(grpc.RpcError, match="watches and tails open already"):
        next(flows.WatchFlows(cdc.WatchFlowsRequest()))
    for each in watches:
        each.cancel()
