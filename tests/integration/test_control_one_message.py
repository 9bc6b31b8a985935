"""The message explorer over gRPC: one message, whole, wherever it lies."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import grpc
import pytest

from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.pb.cdc.v1 import cdc_pb2
from control.services.calls import Workers
from control.services.message_service import MessageService
from tests.integration.control_explorer import FixedSpecs, Writer, refused, row, serving, subject
from tests.integration.explored import ASCENDING, BY_TIME, Stub

if TYPE_CHECKING:
    from tests.integration.explored import Content
    from tests.servers.nats import NatsFactory


pytestmark = pytest.mark.servers


def test_a_message_is_shown_whole(explorer_stub: Stub, explorer_content: Content) -> None:
    source, place, change = explorer_content.log[123]
    request = cdc_pb2.ListMessagesRequest(limit=1, page=124, order=BY_TIME, preview_bytes=20)
    (listed_,) = explorer_stub.ListMessages(request).messages
    assert listed_.payload == change.envelope[:20].decode()
    assert listed_.payload_cut
    assert not listed_.headers
    message = explorer_stub.GetMessage(cdc_pb2.GetMessageRequest(name=listed_.name))
    assert message.payload == change.envelope.decode()
    assert not message.payload_cut
    assert message.size == listed_.size == len(change.envelope)
    assert (message.source, message.op, message.key) == (source, change.op, change.key)
    assert message.position == change.position
    assert message.transaction == change.transaction
    assert f"CDC.{source}.{message.topic}.{message.partition}" == place
    headers = {header.name: header.value for header in message.headers}
    assert headers["Cdc-Key"] == change.key
    assert headers["Cdc-Tx"] == f"{change.transaction};last"
    assert not any(name == "Nats-Num-Pending" for name in headers)


def test_rows_beyond_a_message_are_resolved(nats_factory: NatsFactory) -> None:
    server = nats_factory(max_payload=64 * 1024)
    nats = NatsSpec(url=(server.url,))
    writer = Writer(nats, "shop")
    noise = random.Random(3).randbytes(200_000).hex()
    changes = [row("shop", 1, 1, text="x" * 300_000), row("shop", 2, 2, "u", noise)]
    writer.write([(subject("shop", "db.users", change), change) for change in changes])
    writer.close()
    explorer, workers = Explorer(nats, FixedSpecs({})), Workers()
    service = MessageService(explorer, workers)
    with serving(service.register) as channel:
        explorer_stub = Stub(channel)
        request = cdc_pb2.ListMessagesRequest(order=ASCENDING)
        compressed, object_ = explorer_stub.ListMessages(request).messages
        assert (compressed.op, compressed.size) == ("c", len(changes[0].envelope))
        assert (object_.op, object_.payload, object_.payload_cut) == ("", "", True)
        for message, change in zip((compressed, object_), changes, strict=True):
            whole = explorer_stub.GetMessage(cdc_pb2.GetMessageRequest(name=message.name))
            assert whole.payload == change.envelope.decode()
        request.filter.text = noise[1000:1100]
        (found,) = explorer_stub.ListMessages(request).messages
        assert (found.name, found.op) == (object_.name, "u")
    workers.close()
    explorer.close()


@pytest.mark.parametrize("name", ["streams/CDC_shop/messages/0", "streams/x/messages/1", ""])
def test_a_wrong_name_is_refused(explorer_stub: Stub, name: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        explorer_stub.GetMessage(cdc_pb2.GetMessageRequest(name=name))
    assert refused(raised.value) == "name"


# The first message of a stream is the marker of its writer.
@pytest.mark.parametrize(
    "name", ["CDC_shop/messages/1", "CDC_shop/messages/999999999", "CDC_x/messages/1"]
)
def test_what_is_no_change_is_not_found(explorer_stub: Stub, name: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        explorer_stub.GetMessage(cdc_pb2.GetMessageRequest(name=f"streams/{name}"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
