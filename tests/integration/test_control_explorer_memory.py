"""The explorer's memory does not grow with streams, partitions, rows and dead letters."""

from __future__ import annotations

import tracemalloc
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.explorer.pages import Ordered
from control.explorer.wanted import Wanted
from control.servers.nats import NatsServer, find_nats_server
from tests.integration.control_explorer import FixedSpecs, Writer, row
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.explorer.messages import Message

pytestmark = pytest.mark.servers

MIB = 1024 * 1024
STREAMS, PARTITIONS, SIZE = 30, 16, 500_000
SOURCES = [f"s{number}" for number in range(STREAMS)]


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsSpec]:
    """Thirty streams with some 30 MiB of large rows, one of them in many partitions."""
    program = obtain("nats", find_nats_server)
    with NatsServer(program=program, sync_interval="2m") as server:
        spec = NatsSpec(url=(server.url,))
        for source in SOURCES:
            with closing(Writer(spec, source)) as writer:
                count = PARTITIONS * 2 if source == "s0" else 1
                changes = [row(source, number, number, text="x" * SIZE) for number in range(count)]
                writer.write([
                    (f"CDC.{source}.db.users.{number % PARTITIONS}", change)
                    for number, change in enumerate(changes)
                ])  # fmt: skip
        yield spec


@pytest.fixture
def explorer(nats: NatsSpec) -> Iterator[Explorer]:
    with closing(Explorer(nats, FixedSpecs({"sources": {}}), {})) as explorer:
        explorer.topics("")  # what is made once, is there
        yield explorer


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """What is inside takes no more memory than so many bytes at any moment."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak < size
    finally:
        tracemalloc.stop()


TOTAL = STREAMS - 1 + 2 * PARTITIONS


@pytest.mark.parametrize("text", ["", "xxx"])
def test_a_list_of_many_streams_holds_few_rows_at_once(explorer: Explorer, text: str) -> None:
    with at_most(14 * MIB):
        found = explorer.messages(
            Wanted(text=text), Ordered(by_time=True), limit=1000, preview=100
        ).page
    assert len(found.messages) == TOTAL


def test_topics_of_many_streams_are_told_of_holding_few_rows_at_once(explorer: Explorer) -> None:
    (parts,) = explorer.topics("db.users").values()
    with at_most(26 * MIB):
        assert sum(each.messages for each in explorer.partitions(parts)) == TOTAL


def test_many_streams_are_followed_holding_few_rows_at_once(
    explorer: Explorer, nats: NatsSpec
) -> None:
    tail = explorer.tail(Wanted(), last=0, preview=100)
    for source in SOURCES:
        with closing(Writer(nats, source)) as writer:
            changes = [row(source, 100 + number, 1, text="y" * SIZE) for number in range(2)]
            writer.write([(f"CDC.{source}.app.0", change) for change in changes])
    seen: list[Message] = []
    with at_most(14 * MIB):
        while len(seen) < 2 * STREAMS:
            seen += tail.next()
    assert [each.time for each in seen] == sorted(each.time for each in seen)
    with at_most(20 * MIB):
        tail = explorer.tail(Wanted(topic="app"), last=1000, preview=100)
        again: list[Message] = []
        while len(again) < 2 * STREAMS:
            again += tail.next()
    assert again == seen
