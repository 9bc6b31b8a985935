"""Sources deleted over gRPC, with what they have made, on a real NATS server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.layout import ensure_stream
from connectors.jetstream.spec import StreamSpec
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_flows import until
from tests.integration.control_refusals import refused
from tests.integration.control_registered import ENVIRONMENT, SHOP, WAREHOUSE, create_shop
from tests.integration.control_server import RunningControl

if TYPE_CHECKING:
    from google.protobuf.empty_pb2 import Empty

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec

pytestmark = pytest.mark.servers


def test_a_source_that_others_name_is_not_deleted(control: RunningControl) -> None:
    stub = control.config
    create_shop(control)
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


def _drop(control: RunningControl, connection: Connection, name: str) -> grpc.Future[Empty]:
    """Begin to delete a source with its stream, whose flow runs still."""
    control.config.CreateSource(cdc.CreateSourceRequest(source_id=name, source=SHOP))
    ensure_stream(connection, StreamSpec(), f"CDC_{name}", f"CDC.{name}.>")
    control.flows.runs.add(f"capture/{name}")
    request = cdc.DeleteSourceRequest(
        name=f"sources/{name}", server_objects=cdc.DISPOSAL_KEEP, stream=cdc.DISPOSAL_DROP
    )
    call = control.config.DeleteSource.future(request)
    until(lambda: f"capture/{name}" in control.flows.asked, "it waits for its flow")
    return call


def test_a_stream_goes_only_when_its_flow_has_stopped(
    control: RunningControl, control_nats: NatsSpec
) -> None:
    with connect(control_nats) as connection:
        call = _drop(control, connection, "shop")
        assert api.stream_info(connection, "CDC_shop") is not None
        again = cdc.CreateSourceRequest(source_id="shop", source=SHOP)
        found = refused(control.config.CreateSource, again)
        assert (found.reason, found.retry) == ("CONTROL_DISPOSING", True)
        control.flows.runs.clear()
        call.result(30)
        assert api.stream_info(connection, "CDC_shop") is None
    assert control.store.read().document.disposals == {}
    create_shop(control)


def test_another_service_removes_what_the_first_one_did_not(
    control: RunningControl, control_nats: NatsSpec
) -> None:
    with connect(control_nats) as connection:
        _drop(control, connection, "shop").cancel()
        with RunningControl(control_nats, ENVIRONMENT) as other:
            other.run(other.service.disposals.dispose("shop"))
        assert api.stream_info(connection, "CDC_shop") is None
    control.flows.runs.clear()


def test_a_source_that_waits_keeps_no_other_one_back(
    control: RunningControl, control_nats: NatsSpec
) -> None:
    flows = control.flows
    with connect(control_nats) as connection:
        calls = {name: _drop(control, connection, name) for name in ("shop", "crm", "hr")}
        flows.runs.remove("capture/crm")
        calls["crm"].result(20)
        # Whose callers have gone: the service itself goes on with both.
        for name in ("shop", "hr"):
            calls[name].cancel()
        flows.asked.clear()
        going_on = control.go(control.service.disposals.run())
        until(lambda: len(flows.asked) == 2, "both are waited for")
        flows.runs.remove("capture/hr")
        until(lambda: api.stream_info(connection, "CDC_hr") is None, "the other one is removed")
        assert api.stream_info(connection, "CDC_shop") is not None
        flows.runs.clear()
        until(lambda: api.stream_info(connection, "CDC_shop") is None, "both are removed")
        going_on.cancel()
