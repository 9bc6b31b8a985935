"""The message explorer over gRPC: what it lists, in which order, and how it goes on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import grpc
import pytest

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.servers.nats import NatsServer, find_nats_server
from control.services.calls import Workers
from control.services.message_service import MessageService
from dataflows.routing import partition
from tests.integration.control_explorer import (
    PARTITIONS,
    FixedSpecs,
    Writer,
    refused,
    row,
    serving,
    subject,
)
from tests.integration.streams import until
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.changes import Change
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

TREE = {
    "sources": {"shop": {"type": "postgres"}, "store": {"type": "mysql"}},
    "sinks": {
        "warehouse": {"type": "postgres", "topics": ["db.*"]},
        "search": {"type": "elasticsearch", "topics": ["db.users"], "from": ["shop"]},
    },
}
Stub = cdc_pb2_grpc.MessageServiceStub
ASCENDING, DESCENDING = cdc_pb2.ORDER_SEQUENCE_ASCENDING, cdc_pb2.ORDER_SEQUENCE_DESCENDING
UNSENT, UNKNOWN = cdc_pb2.DELIVERY_STATE_UNSENT, cdc_pb2.DELIVERY_STATE_UNSPECIFIED
# Where the key 3 goes.
PLACE = partition('{"id":3}', PARTITIONS)
BY_TIME, NEWEST = cdc_pb2.ORDER_TIME_ASCENDING, cdc_pb2.ORDER_TIME_DESCENDING


class Content:
    """What was stored: the changes of each source in order, with their subjects."""

    def __init__(self, nats: NatsSpec) -> None:
        self.nats = nats
        self.writers = {name: Writer(nats, name) for name in ("shop", "store")}
        self.log: list[tuple[str, str, Change]] = []

    def write(self, source: str, messages: list[tuple[str, Change]]) -> None:
        self.writers[source].write(messages)
        self.log += [(source, subject, change) for subject, change in messages]

    def positions(self, *topics: str, source: str = "") -> list[str]:
        return [
            f"{origin}/{change.position}"
            for origin, place, change in self.log
            if (not source or origin == source)
            and (not topics or any(place.startswith(f"CDC.{origin}.{topic}.") for topic in topics))
        ]


@pytest.fixture(scope="module")
def module_nats() -> Iterator[NatsServer]:
    with NatsServer(program=obtain("nats", find_nats_server)) as server:
        yield server


@pytest.fixture(scope="module")
def content(module_nats: NatsServer) -> Iterator[Content]:
    """Two sources of three topics, written in turns, in pieces of uneven size."""
    made = Content(NatsSpec(url=(module_nats.url,)))
    chance = random.Random(7)
    number = 0
    for _ in range(30):
        source = chance.choice(["shop", "store"])
        messages = []
        for _ in range(chance.randint(1, 120)):
            number += 1
            topic = chance.choice(["db.users", "db.users", "db.users", "db.orders", "app"])
            change = row(source, number, chance.randint(1, 50), chance.choice("cud"))
            messages.append((subject(source, topic, change), change))
        made.write(source, messages)
    yield made
    for writer in made.writers.values():
        writer.close()


@pytest.fixture(scope="module")
def stub(content: Content) -> Iterator[Stub]:
    explorer, workers = Explorer(content.nats, FixedSpecs(TREE)), Workers()
    service = MessageService(explorer, workers)
    with serving(service.register) as channel:
        yield Stub(channel)
    workers.close()
    explorer.close()


def listed(response: cdc_pb2.ListMessagesResponse) -> list[str]:
    return [f"{message.source}/{message.position}" for message in response.messages]


def through(stub: Stub, request: cdc_pb2.ListMessagesRequest) -> list[str]:
    """All pages, by their tokens."""
    found: list[str] = []
    while True:
        response = stub.ListMessages(request)
        found += listed(response)
        if not response.next_page_token:
            return found
        assert len(response.messages) == request.limit or response.incomplete
        request.page_token = response.next_page_token


def test_topics_are_found_in_the_streams(stub: Stub, content: Content) -> None:
    response = stub.ListStoredTopics(cdc_pb2.ListStoredTopicsRequest())
    assert [topic.name for topic in response.topics] == [
        "storedTopics/app", "storedTopics/db.orders", "storedTopics/db.users",
    ]  # fmt: skip
    assert response.total_size == 3
    for topic in response.topics:
        name = topic.name.removeprefix("storedTopics/")
        assert topic.messages == len(content.positions(name))
        assert list(topic.sources) == ["shop", "store"]
        assert list(topic.sinks) == {
            "app": [], "db.orders": ["warehouse"], "db.users": ["search", "warehouse"],
        }[name]  # fmt: skip
        assert topic.bytes > 100 * topic.messages
        for part in topic.partitions:
            mine = [
                change
                for source, place, change in content.log
                if place == f"CDC.{part.source}.{name}.{part.partition}"
            ]
            assert part.messages == len(mine)
            assert part.stream == f"CDC_{part.source}"
            assert 0 < part.first_sequence <= part.last_sequence
            assert part.first_time.ToNanoseconds() <= part.last_time.ToNanoseconds()
            assert part.rate == pytest.approx(len(mine) / 60)


def test_stored_topics_come_in_pages(stub: Stub) -> None:
    request = cdc_pb2.ListStoredTopicsRequest(filter="db.*", page_size=1)
    first = stub.ListStoredTopics(request)
    assert [topic.name for topic in first.topics] == ["storedTopics/db.orders"]
    request.page_token = first.next_page_token
    second = stub.ListStoredTopics(request)
    assert [topic.name for topic in second.topics] == ["storedTopics/db.users"]
    assert not second.next_page_token


@pytest.mark.parametrize(
    ("topic", "topics"),
    [("db.users", ["db.users"]), ("db.*", ["db"]), ("", []), ("*", []), ("app", ["app"])],
)
def test_a_source_is_listed_in_its_order_both_ways(
    stub: Stub, content: Content, topic: str, topics: list[str]
) -> None:
    expected = content.positions(*topics, source="shop")
    choice = cdc_pb2.MessageFilter(topic=topic, source="shop")
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=37, order=ASCENDING)
    assert through(stub, request) == expected
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=37, order=DESCENDING)
    assert through(stub, request) == expected[::-1]


@pytest.mark.parametrize("topics", [["db.users"], []])
def test_several_streams_are_merged_by_time(
    stub: Stub, content: Content, topics: list[str]
) -> None:
    expected = content.positions(*topics)
    choice = cdc_pb2.MessageFilter(topic=topics[0] if topics else "")
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=50, order=BY_TIME)
    assert through(stub, request) == expected
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=50, order=NEWEST)
    assert through(stub, request) == expected[::-1]


@pytest.mark.parametrize("order", [ASCENDING, DESCENDING, BY_TIME, NEWEST])
@pytest.mark.parametrize("topic", ["db.users", "db.*", ""])
def test_a_page_by_its_number_is_that_of_the_tokens(stub: Stub, order: int, topic: str) -> None:
    choice = cdc_pb2.MessageFilter(topic=topic)
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=40, order=order)  # type: ignore[arg-type]
    whole = through(stub, request)
    request.page_token = ""
    for page in (1, 2, 5, len(whole) // 40 + 1):
        request.page = page
        response = stub.ListMessages(request)
        assert listed(response) == whole[(page - 1) * 40 : page * 40]
        assert response.total_size == len(whole)
        if response.next_page_token:
            following = cdc_pb2.ListMessagesRequest()
            following.CopyFrom(request)
            following.page, following.page_token = 0, response.next_page_token
            assert listed(stub.ListMessages(following)) == whole[page * 40 : (page + 1) * 40]
    request.page = len(whole) // 40 + 2
    response = stub.ListMessages(request)
    assert not response.messages
    assert not response.next_page_token


def test_sequences_of_several_streams_are_merged_too(stub: Stub) -> None:
    request = cdc_pb2.ListMessagesRequest(limit=1000, order=ASCENDING)
    response = stub.ListMessages(request)
    places = [(message.sequence, message.stream) for message in response.messages]
    assert places == sorted(places)


@pytest.mark.parametrize("order", [ASCENDING, NEWEST])
def test_filters_that_look_at_messages(stub: Stub, content: Content, order: int) -> None:
    changes = [(source, place, change) for source, place, change in content.log]

    def expected(keep: object) -> set[str]:
        assert callable(keep)
        return {f"{s}/{c.position}" for s, place, c in changes if keep(place, c)}

    cases = [
        (cdc_pb2.MessageFilter(ops=["d"]), lambda place, c: c.op == "d"),
        (cdc_pb2.MessageFilter(ops=["c", "u"], topic="app"),
         lambda place, c: c.op in "cu" and ".app." in place),
        (cdc_pb2.MessageFilter(key='{"id": 17}'), lambda place, c: c.key == '{"id":17}'),
        (cdc_pb2.MessageFilter(text="user 1"), lambda place, c: b"user 1" in c.envelope),
        (cdc_pb2.MessageFilter(partition=2), lambda place, c: place.endswith(".2")),
        (cdc_pb2.MessageFilter(partition=2, topic="db.users"),
         lambda place, c: place.endswith("db.users.2")),
        (cdc_pb2.MessageFilter(partition=PLACE, topic="db.*", ops=["c", "u"], key='{"id":3}'),
         lambda place, c: ".db." in place and c.op in "cu" and c.key == '{"id":3}'),
    ]  # fmt: skip
    for choice, keep in cases:
        request = cdc_pb2.ListMessagesRequest(filter=choice, limit=90, order=order)  # type: ignore[arg-type]
        found = through(stub, request)
        assert len(found) == len(set(found))
        assert set(found) == expected(keep)
        assert found
        paged = cdc_pb2.ListMessagesRequest(filter=choice, limit=13, order=order, page=2)  # type: ignore[arg-type]
        assert listed(stub.ListMessages(paged)) == found[13:26]


@pytest.mark.parametrize("order", [ASCENDING, NEWEST])
def test_an_index_of_keys_answers_as_a_look_does(stub: Stub, content: Content, order: int) -> None:
    expected = {
        f"{source}/{change.position}"
        for source, place, change in content.log
        if change.key == '{"id":23}' and ".db." in place
    }
    choice = cdc_pb2.MessageFilter(topic="db.*", key='{"id": 23}')
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=7, order=order)  # type: ignore[arg-type]
    looked = through(stub, request)
    assert set(looked) == expected
    request.page_token = ""
    # Built beside the first request; from then on what matches is counted.
    until(lambda: stub.ListMessages(request).total_size == len(expected))
    assert through(stub, request) == looked
    request.page, request.page_token = 2, ""
    assert listed(stub.ListMessages(request)) == looked[7:14]
    number = 2_000_000 + len(content.log)
    change = row("store", number, 23)
    content.write("store", [(subject("store", "db.users", change), change)])
    request.page = 0
    assert stub.ListMessages(request).total_size == len(expected) + 1


def test_new_messages_are_followed(stub: Stub, content: Content) -> None:
    before = content.positions("db.users", "db.orders")[-5:]
    call = stub.TailMessages(
        cdc_pb2.TailMessagesRequest(filter=cdc_pb2.MessageFilter(topic="db.*"), last=5)
    )
    seen = [next(call) for _ in range(5)]
    assert [f"{each.source}/{each.position}" for each in seen] == before
    expected = []
    for turn in range(6):
        number = 3_000_000 + len(content.log)
        source = ("shop", "store")[turn % 2]
        messages = []
        for index in range(300 if turn == 3 else 2):
            topic = ("db.users", "app")[index % 2]
            change = row(source, number + index, 9, "u")
            messages.append((subject(source, topic, change), change))
            if topic == "db.users":
                expected.append(f"{source}/{change.position}")
        content.write(source, messages)
    found = [next(call) for _ in range(len(expected))]
    # Within a source in its order; two sources may be seen in turns.
    for source in ("shop", "store"):
        mine = [f"{each.source}/{each.position}" for each in found if each.source == source]
        assert mine == [each for each in expected if each.startswith(f"{source}/")]
    call.cancel()


def test_a_follower_sees_a_stream_that_is_new(stub: Stub, content: Content) -> None:
    choice = cdc_pb2.MessageFilter(topic="fresh")
    call = stub.TailMessages(cdc_pb2.TailMessagesRequest(filter=choice))
    writer = Writer(content.nats, "later")
    change = row("later", 1, 1)
    writer.write([(subject("later", "fresh", change), change)])
    writer.close()
    assert next(call).stream == "CDC_later"
    call.cancel()
    # A stream that is there no longer makes a token stale.
    request = cdc_pb2.ListMessagesRequest(limit=1)
    request.page_token = stub.ListMessages(request).next_page_token
    with connect(content.nats) as connection:
        api.call(connection, "STREAM.DELETE.CDC_later", None, dict)
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListMessages(request)
    assert refused(raised.value) == "page_token"


@pytest.mark.parametrize("field", ["start_time", "end_time"])
def test_a_follower_names_no_time(stub: Stub, field: str) -> None:
    choice = cdc_pb2.MessageFilter()
    getattr(choice, field).GetCurrentTime()
    with pytest.raises(grpc.RpcError) as raised:
        next(stub.TailMessages(cdc_pb2.TailMessagesRequest(filter=choice)))
    assert refused(raised.value) == f"filter.{field}"


def test_a_time_range_is_cut_out(stub: Stub, content: Content) -> None:
    request = cdc_pb2.ListMessagesRequest(limit=1000, order=BY_TIME)
    everything = stub.ListMessages(request).messages
    begin, end = everything[200], everything[500]
    request = cdc_pb2.ListMessagesRequest(
        filter=cdc_pb2.MessageFilter(start_time=begin.time, end_time=end.time), order=BY_TIME,
        limit=1000,
    )  # fmt: skip
    response = stub.ListMessages(request)
    assert listed(response) == content.positions()[200:500]
    assert response.total_size == 300
    assert through(stub, cdc_pb2.ListMessagesRequest(
        filter=request.filter, order=NEWEST, limit=70
    )) == content.positions()[200:500][::-1]  # fmt: skip


def test_what_is_stored_meanwhile_moves_no_page(stub: Stub, content: Content) -> None:
    before = content.positions("db.users", source="shop")
    request = cdc_pb2.ListMessagesRequest(
        filter=cdc_pb2.MessageFilter(topic="db.users", source="shop"), limit=30, order=DESCENDING
    )
    first = stub.ListMessages(request)
    number = 1_000_000 + len(content.log)
    change = row("shop", number, 17)
    content.write("shop", [(subject("shop", "db.users", change), change)])
    request.page_token = first.next_page_token
    assert listed(stub.ListMessages(request)) == before[::-1][30:60]


def test_a_message_is_shown_whole(stub: Stub, content: Content) -> None:
    source, place, change = content.log[123]
    request = cdc_pb2.ListMessagesRequest(limit=1, page=124, order=BY_TIME, preview_bytes=20)
    (listed_,) = stub.ListMessages(request).messages
    assert listed_.payload == change.envelope[:20].decode()
    assert listed_.payload_cut
    assert not listed_.headers
    message = stub.GetMessage(cdc_pb2.GetMessageRequest(name=listed_.name))
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
        stub = Stub(channel)
        request = cdc_pb2.ListMessagesRequest(order=ASCENDING)
        compressed, object_ = stub.ListMessages(request).messages
        assert (compressed.op, compressed.size) == ("c", len(changes[0].envelope))
        assert (object_.op, object_.payload, object_.payload_cut) == ("", "", True)
        for message, change in zip((compressed, object_), changes, strict=True):
            whole = stub.GetMessage(cdc_pb2.GetMessageRequest(name=message.name))
            assert whole.payload == change.envelope.decode()
        request.filter.text = noise[1000:1100]
        (found,) = stub.ListMessages(request).messages
        assert (found.name, found.op) == (object_.name, "u")
    workers.close()
    explorer.close()


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
        (cdc_pb2.ListMessagesRequest(filter=cdc_pb2.MessageFilter(partition=-1)),
         "filter.partition"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(
    stub: Stub, request_: cdc_pb2.ListMessagesRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListMessages(request_)
    assert refused(raised.value) == field


def test_a_token_of_another_question_is_refused(stub: Stub) -> None:
    token = stub.ListMessages(cdc_pb2.ListMessagesRequest(limit=5)).next_page_token
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListMessages(cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(topic="app"), page_token=token
        ))  # fmt: skip
    assert refused(raised.value) == "page_token"
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListStoredTopics(cdc_pb2.ListStoredTopicsRequest(filter=".."))
    assert refused(raised.value) == "filter"


@pytest.mark.parametrize("name", ["streams/CDC_shop/messages/0", "streams/x/messages/1", ""])
def test_a_wrong_name_is_refused(stub: Stub, name: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetMessage(cdc_pb2.GetMessageRequest(name=name))
    assert refused(raised.value) == "name"


# The first message of a stream is the marker of its writer.
@pytest.mark.parametrize(
    "name", ["CDC_shop/messages/1", "CDC_shop/messages/999999999", "CDC_x/messages/1"]
)
def test_what_is_no_change_is_not_found(stub: Stub, name: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetMessage(cdc_pb2.GetMessageRequest(name=f"streams/{name}"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
