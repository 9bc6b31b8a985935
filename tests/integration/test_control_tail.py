"""The message explorer over gRPC: what is stored from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from control.pb.cdc.v1 import cdc_pb2
from tests.integration.control_explorer import Writer, refused, row, subject

if TYPE_CHECKING:
    from tests.integration.explored import Content, Stub


pytestmark = pytest.mark.servers


def test_new_messages_are_followed(explorer_stub: Stub, explorer_content: Content) -> None:
    before = explorer_content.positions("db.users", "db.orders")[-5:]
    call = explorer_stub.TailMessages(
        cdc_pb2.TailMessagesRequest(filter=cdc_pb2.MessageFilter(topic="db.*"), last=5)
    )
    seen = [next(call) for _ in range(5)]
    assert [f"{each.source}/{each.position}" for each in seen] == before
    expected = []
    for turn in range(6):
        number = 3_000_000 + len(explorer_content.log)
        source = ("shop", "store")[turn % 2]
        messages = []
        for index in range(300 if turn == 3 else 2):
            topic = ("db.users", "app")[index % 2]
            change = row(source, number + index, 9, "u")
            messages.append((subject(source, topic, change), change))
            if topic == "db.users":
                expected.append(f"{source}/{change.position}")
        explorer_content.write(source, messages)
    found = [next(call) for _ in range(len(expected))]
    # Within a source in its order; two sources may be seen in turns.
    for source in ("shop", "store"):
        mine = [f"{each.source}/{each.position}" for each in found if each.source == source]
        assert mine == [each for each in expected if each.startswith(f"{source}/")]
    call.cancel()


def test_a_follower_sees_a_stream_that_is_new(
    explorer_stub: Stub, explorer_content: Content
) -> None:
    choice = cdc_pb2.MessageFilter(topic="fresh")
    call = explorer_stub.TailMessages(cdc_pb2.TailMessagesRequest(filter=choice))
    writer = Writer(explorer_content.nats, "later")
    change = row("later", 1, 1)
    writer.write([(subject("later", "fresh", change), change)])
    writer.close()
    assert next(call).stream == "CDC_later"
    call.cancel()
    # A stream that is there no longer makes a token stale.
    request = cdc_pb2.ListMessagesRequest(limit=1)
    request.page_token = explorer_stub.ListMessages(request).next_page_token
    with connect(explorer_content.nats) as connection:
        api.call(connection, "STREAM.DELETE.CDC_later", None, dict)
    with pytest.raises(grpc.RpcError) as raised:
        explorer_stub.ListMessages(request)
    assert refused(raised.value) == "page_token"


@pytest.mark.parametrize("field", ["start_time", "end_time"])
def test_a_follower_names_no_time(explorer_stub: Stub, field: str) -> None:
    choice = cdc_pb2.MessageFilter()
    getattr(choice, field).GetCurrentTime()
    with pytest.raises(grpc.RpcError) as raised:
        next(explorer_stub.TailMessages(cdc_pb2.TailMessagesRequest(filter=choice)))
    assert refused(raised.value) == f"filter.{field}"
