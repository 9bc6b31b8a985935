"""The message explorer over gRPC: questions that are refused, and what of them is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from control.pb.cdc.v1 import cdc_pb2
from tests.integration.control_explorer import refused

if TYPE_CHECKING:
    from tests.integration.explored import Stub


pytestmark = pytest.mark.servers

NEVER = Timestamp(seconds=1 << 50)
UNSENT, UNKNOWN = cdc_pb2.DELIVERY_STATE_UNSENT, cdc_pb2.DELIVERY_STATE_UNSPECIFIED


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (cdc_pb2.ListMessagesRequest(page_token="nonsense"), "page_token"),
        (cdc_pb2.ListMessagesRequest(page=2, page_token="x"), "page_token"),
        (cdc_pb2.ListMessagesRequest(page=-1), "page"),
        (cdc_pb2.ListMessagesRequest(limit=-1), "limit"),
        (cdc_pb2.ListMessagesRequest(preview_bytes=-1), "preview_bytes"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(topic="a.*.b")), "filter.topic"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(source="a.>")), "filter.source"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(key="17")), "filter.key"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(ops=["c", "x"])),
         "filter.ops[1]"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(states=[UNSENT])),
         "filter.sink"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(states=[UNKNOWN], sink="search")),
         "filter.states[0]"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(sink="nobody")), "filter.sink"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(start_time=NEVER)),
         "filter.start_time"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(end_time=NEVER)),
         "filter.end_time"),
        (cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(start_time=Timestamp(nanos=-1))
        ), "filter.start_time"),
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(partition=-1)),
         "filter.partition"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(
    explorer_stub: Stub, request_: cdc_pb2.ListMessagesRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        explorer_stub.ListMessages(request_)
    assert refused(raised.value) == field


def test_a_token_of_another_question_is_refused(explorer_stub: Stub) -> None:
    token = explorer_stub.ListMessages(cdc_pb2.ListMessagesRequest(limit=5)).next_page_token
    with pytest.raises(grpc.RpcError) as raised:
        explorer_stub.ListMessages(cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(topic="app"), page_token=token
        ))  # fmt: skip
    assert refused(raised.value) == "page_token"
    with pytest.raises(grpc.RpcError) as raised:
        explorer_stub.ListStoredTopics(cdc_pb2.ListStoredTopicsRequest(filter=".."))
    assert refused(raised.value) == "filter"


def test_times_before_streams_are_times(explorer_stub: Stub) -> None:
    choice = cdc_pb2.MessageFilter(start_time=Timestamp(seconds=-62_135_596_800))
    found = explorer_stub.ListMessages(cdc_pb2.ListMessagesRequest(filter=choice))
    assert found.total_size == explorer_stub.ListMessages(cdc_pb2.ListMessagesRequest()).total_size
    choice.end_time.FromSeconds(-1)
    assert not explorer_stub.ListMessages(cdc_pb2.ListMessagesRequest(filter=choice)).messages
    choice = cdc_pb2.MessageFilter(start_time=Timestamp(seconds=253_402_300_799))
    assert not explorer_stub.ListMessages(cdc_pb2.ListMessagesRequest(filter=choice)).messages
