"""What a module's tests of the explorer look into: two sources of three topics, and a service."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.servers.nats import NatsServer, find_nats_server
from control.services.calls import Workers
from control.services.message_service import MessageService
from tests.integration.control_explorer import FixedSpecs, Writer, row, serving, subject
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.changes import Change

TREE = {
    "sources": {"shop": {"type": "postgres"}, "store": {"type": "mysql"}},
    "sinks": {
        "warehouse": {"type": "postgres", "topics": ["db.*"]},
        "search": {"type": "elasticsearch", "topics": ["db.users"], "from": ["shop"]},
    },
}
Stub = cdc_pb2_grpc.MessageServiceStub
ASCENDING, DESCENDING = cdc_pb2.ORDER_SEQUENCE_ASCENDING, cdc_pb2.ORDER_SEQUENCE_DESCENDING
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
def explorer_nats() -> Iterator[NatsServer]:
    with NatsServer(program=obtain("nats", find_nats_server)) as server:
        yield server


@pytest.fixture(scope="module")
def explorer_content(explorer_nats: NatsServer) -> Iterator[Content]:
    """Two sources of three topics, written in turns, in pieces of uneven size."""
    made = Content(NatsSpec(url=(explorer_nats.url,)))
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
def explorer_stub(explorer_content: Content) -> Iterator[Stub]:
    explorer, workers = Explorer(explorer_content.nats, FixedSpecs(TREE)), Workers()
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
