"""The message explorer over gRPC: topics and lists of messages, their order, how they go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from control.pb.cdc.v1 import cdc_pb2
from dataflows.routing import partition
from tests.integration.control_explorer import PARTITIONS, row, subject
from tests.integration.explored import ASCENDING, BY_TIME, DESCENDING, NEWEST, listed, through
from tests.integration.streams import until

if TYPE_CHECKING:
    from tests.integration.explored import Content, Stub


pytestmark = pytest.mark.servers

# Where the key 3 goes.
PLACE = partition('{"id":3}', PARTITIONS)


def test_topics_are_found_in_the_streams(explorer_stub: Stub, explorer_content: Content) -> None:
    response = explorer_stub.ListStoredTopics(cdc_pb2.ListStoredTopicsRequest())
    assert [topic.name for topic in response.topics] == [
        "storedTopics/app", "storedTopics/db.orders", "storedTopics/db.users",
    ]  # fmt: skip
    assert response.total_size == 3
    for topic in response.topics:
        name = topic.name.removeprefix("storedTopics/")
        assert topic.messages == len(explorer_content.positions(name))
        assert list(topic.sources) == ["shop", "store"]
        assert list(topic.sinks) == {
            "app": [], "db.orders": ["warehouse"], "db.users": ["search", "warehouse"],
        }[name]  # fmt: skip
        assert topic.bytes > 100 * topic.messages
        for part in topic.partitions:
            mine = [
                change
                for source, place, change in explorer_content.log
                if place == f"CDC.{part.source}.{name}.{part.partition}"
            ]
            assert part.messages == len(mine)
            assert part.stream == f"CDC_{part.source}"
            assert 0 < part.first_sequence <= part.last_sequence
            assert part.first_time.ToNanoseconds() <= part.last_time.ToNanoseconds()
            assert part.rate == pytest.approx(len(mine) / 60)


def test_stored_topics_come_in_pages(explorer_stub: Stub) -> None:
    request = cdc_pb2.ListStoredTopicsRequest(filter="db.*", page_size=1)
    first = explorer_stub.ListStoredTopics(request)
    assert [topic.name for topic in first.topics] == ["storedTopics/db.orders"]
    request.page_token = first.next_page_token
    second = explorer_stub.ListStoredTopics(request)
    assert [topic.name for topic in second.topics] == ["storedTopics/db.users"]
    assert not second.next_page_token


@pytest.mark.parametrize(
    ("topic", "topics"),
    [("db.users", ["db.users"]), ("db.*", ["db"]), ("", []), ("*", []), ("app", ["app"])],
)
def test_a_source_is_listed_in_its_order_both_ways(
    explorer_stub: Stub, explorer_content: Content, topic: str, topics: list[str]
) -> None:
    expected = explorer_content.positions(*topics, source="shop")
    choice = cdc_pb2.MessageFilter(topic=topic, source="shop")
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=37, order=ASCENDING)
    assert through(explorer_stub, request) == expected
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=37, order=DESCENDING)
    assert through(explorer_stub, request) == expected[::-1]


@pytest.mark.parametrize("topics", [["db.users"], []])
def test_several_streams_are_merged_by_time(
    explorer_stub: Stub, explorer_content: Content, topics: list[str]
) -> None:
    expected = explorer_content.positions(*topics)
    choice = cdc_pb2.MessageFilter(topic=topics[0] if topics else "")
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=50, order=BY_TIME)
    assert through(explorer_stub, request) == expected
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=50, order=NEWEST)
    assert through(explorer_stub, request) == expected[::-1]


@pytest.mark.parametrize("order", [ASCENDING, DESCENDING, BY_TIME, NEWEST])
@pytest.mark.parametrize("topic", ["db.users", "db.*", ""])
def test_a_page_by_its_number_is_that_of_the_tokens(
    explorer_stub: Stub, order: int, topic: str
) -> None:
    choice = cdc_pb2.MessageFilter(topic=topic)
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=40, order=order)  # type: ignore[arg-type]
    whole = through(explorer_stub, request)
    request.page_token = ""
    for page in (1, 2, 5, len(whole) // 40 + 1):
        request.page = page
        response = explorer_stub.ListMessages(request)
        assert listed(response) == whole[(page - 1) * 40 : page * 40]
        assert response.total_size == len(whole)
        if response.next_page_token:
            following = cdc_pb2.ListMessagesRequest()
            following.CopyFrom(request)
            following.page, following.page_token = 0, response.next_page_token
            assert (
                listed(explorer_stub.ListMessages(following)) == whole[page * 40 : (page + 1) * 40]
            )
    request.page = len(whole) // 40 + 2
    response = explorer_stub.ListMessages(request)
    assert not response.messages
    assert not response.next_page_token


def test_sequences_of_several_streams_are_merged_too(explorer_stub: Stub) -> None:
    request = cdc_pb2.ListMessagesRequest(limit=1000, order=ASCENDING)
    response = explorer_stub.ListMessages(request)
    places = [(message.sequence, message.stream) for message in response.messages]
    assert places == sorted(places)


@pytest.mark.parametrize("order", [ASCENDING, NEWEST])
def test_filters_that_look_at_messages(
    explorer_stub: Stub, explorer_content: Content, order: int
) -> None:
    changes = [(source, place, change) for source, place, change in explorer_content.log]

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
        found = through(explorer_stub, request)
        assert len(found) == len(set(found))
        assert set(found) == expected(keep)
        assert found
        paged = cdc_pb2.ListMessagesRequest(filter=choice, limit=13, order=order, page=2)  # type: ignore[arg-type]
        assert listed(explorer_stub.ListMessages(paged)) == found[13:26]


@pytest.mark.parametrize("order", [ASCENDING, NEWEST])
def test_an_index_of_keys_answers_as_a_look_does(
    explorer_stub: Stub, explorer_content: Content, order: int
) -> None:
    expected = {
        f"{source}/{change.position}"
        for source, place, change in explorer_content.log
        if change.key == '{"id":23}' and ".db." in place
    }
    choice = cdc_pb2.MessageFilter(topic="db.*", key='{"id": 23}')
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=7, order=order)  # type: ignore[arg-type]
    looked = through(explorer_stub, request)
    assert set(looked) == expected
    request.page_token = ""
    # Built beside the first request; from then on what matches is counted.
    until(lambda: explorer_stub.ListMessages(request).total_size == len(expected))
    assert through(explorer_stub, request) == looked
    request.page, request.page_token = 2, ""
    assert listed(explorer_stub.ListMessages(request)) == looked[7:14]
    number = 2_000_000 + len(explorer_content.log)
    change = row("store", number, 23)
    explorer_content.write("store", [(subject("store", "db.users", change), change)])
    request.page = 0
    assert explorer_stub.ListMessages(request).total_size == len(expected) + 1


def test_a_time_range_is_cut_out(explorer_stub: Stub, explorer_content: Content) -> None:
    request = cdc_pb2.ListMessagesRequest(limit=1000, order=BY_TIME)
    everything = explorer_stub.ListMessages(request).messages
    begin, end = everything[200], everything[500]
    request = cdc_pb2.ListMessagesRequest(
        filter=cdc_pb2.MessageFilter(start_time=begin.time, end_time=end.time), order=BY_TIME,
        limit=1000,
    )  # fmt: skip
    response = explorer_stub.ListMessages(request)
    assert listed(response) == explorer_content.positions()[200:500]
    assert response.total_size == 300
    assert through(explorer_stub, cdc_pb2.ListMessagesRequest(
        filter=request.filter, order=NEWEST, limit=70
    )) == explorer_content.positions()[200:500][::-1]  # fmt: skip


def test_what_is_stored_meanwhile_moves_no_page(
    explorer_stub: Stub, explorer_content: Content
) -> None:
    before = explorer_content.positions("db.users", source="shop")
    request = cdc_pb2.ListMessagesRequest(
        filter=cdc_pb2.MessageFilter(topic="db.users", source="shop"), limit=30, order=DESCENDING
    )
    first = explorer_stub.ListMessages(request)
    number = 1_000_000 + len(explorer_content.log)
    change = row("shop", number, 17)
    explorer_content.write("shop", [(subject("shop", "db.users", change), change)])
    request.page_token = first.next_page_token
    assert listed(explorer_stub.ListMessages(request)) == before[::-1][30:60]
