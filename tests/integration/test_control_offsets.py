"""How far sources and sinks are, over gRPC, and sinks that are set to another place."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from connectors.contracts.sink import Batch
from connectors.errors import FencedError, RetryableError
from connectors.jetstream.connection import connect
from connectors.jetstream.consumer import Consumer, share
from connectors.jetstream.consumers import progress
from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.explorer.progress import Sinks
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc, config_pb2
from control.services.calls import Repetitions, Workers
from control.services.offset_service import OffsetService
from tests.integration.control_explorer import (
    FixedBoard,
    FixedSpecs,
    Writer,
    refused,
    row,
    serving,
    subject,
)
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Sink
    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

COUNT, FIRST = 40, 25


class Setup:
    """A stream of 25 messages, a PostgreSQL sink and a webhook, and the service."""

    def __init__(self, nats: NatsSpec, database: Database) -> None:
        self.nats, self.board = nats, FixedBoard()
        self.writer = Writer(nats, "shop")
        self.store(1, FIRST)
        tree = {
            "sources": {
                "shop": {"type": "postgres", "dsn": "${DSN}", "slot": "own", "create": False},
                "away": {"type": "postgres", "dsn": "host=127.0.0.1 port=1 dbname=x"},
            },
            "sinks": {
                "warehouse": {"type": "postgres", "dsn": "${DSN}", "topics": ["db.*"]},
                "hook": {
                    "type": "webhook",
                    "url": "https://127.0.0.1:1/",
                    "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
                    "topics": ["db.users"],
                },
            },
        }
        environment = self.environment = {"DSN": database.dsn}
        self.specs = FixedSpecs(tree)
        self.sinks = Sinks(nats, self.specs, environment)
        self.explorer = Explorer(nats, self.specs, environment)
        self.workers = Workers()
        self.service = OffsetService(
            self.explorer, self.board.paused, self.workers, Repetitions(nats)
        )

    def store(self, first: int, last: int) -> None:
        changes = [row("shop", number, number) for number in range(first, last + 1)]
        self.writer.write([(subject("shop", "db.users", each), each) for each in changes])

    def sink(self, name: str) -> Sink:
        sink = self.sinks.sink(name)
        assert sink is not None
        return sink

    def deliver(self) -> Consumer:
        """Let the sink `warehouse` have the first 25 messages, acknowledge them, store 15 more."""
        found = share(self.nats, "warehouse", "CDC_shop", ["db.*"])
        assert found is not None
        sink = self.sink("warehouse")
        claim = sink.claim(found)
        consumer = Consumer(self.nats, claim)
        changes: list[Delivered] = []

        def enough() -> bool:
            batch = consumer.read()
            changes.extend(batch.changes if batch else ())
            return len(changes) == FIRST

        until(enough)
        with closing(sink.open(claim)) as writer:
            writer.write(Batch(claim, changes, changes[-1].sequence))
            writer.flush()
        consumer.confirm(changes[-1].sequence)
        self.store(FIRST + 1, COUNT)
        return consumer

    def close(self) -> None:
        self.writer.close()
        self.workers.close()
        self.explorer.close()


@pytest.fixture
def setup(nats_factory: NatsFactory, database: Database) -> Iterator[Setup]:
    made = Setup(NatsSpec(url=(nats_factory().url,)), database)
    yield made
    made.close()


@pytest.fixture
def stub(setup: Setup) -> Iterator[cdc_pb2_grpc.OffsetServiceStub]:
    with serving(setup.service.register) as channel:
        yield cdc_pb2_grpc.OffsetServiceStub(channel)


def of(stub: cdc_pb2_grpc.OffsetServiceStub, sink: str) -> list[cdc_pb2.SinkOffset]:
    return list(stub.ListSinkOffsets(cdc_pb2.ListSinkOffsetsRequest(sink=sink)).offsets)


def test_sinks_tell_how_far_they_are(setup: Setup, stub: cdc_pb2_grpc.OffsetServiceStub) -> None:
    before = of(stub, "")
    assert [(each.sink, each.partition) for each in before] == [
        *(("hook", number) for number in range(4)),
        *(("warehouse", number) for number in range(4)),
    ]
    for sink in ("hook", "warehouse"):
        mine = of(stub, sink)
        assert {each.topic for each in mine} == {"db.users"}
        assert {each.source for each in mine} == {"shop"}
        assert [each.position for each in mine] == [0] * 4
        assert sum(each.lag_messages for each in mine) == FIRST
        assert all(each.lag_bytes > 100 * each.lag_messages for each in mine)
        assert all(each.lag_time.ToNanoseconds() > 0 for each in mine)
    with closing(setup.deliver()):
        # The stream begins with its writer's mark.
        until(lambda: {each.ack_floor for each in of(stub, "warehouse")} == {26})
        until(lambda: {each.position for each in of(stub, "warehouse")} == {26})
        mine = of(stub, "warehouse")
        assert sum(each.lag_messages for each in mine) == COUNT - FIRST
        until(lambda: {each.unacknowledged for each in of(stub, "warehouse")} == {COUNT - FIRST})
        assert {(each.pending, each.redelivered) for each in of(stub, "warehouse")} == {(0, 0)}
    assert sum(each.lag_messages for each in of(stub, "hook")) == COUNT
    request = cdc_pb2.ListSinkOffsetsRequest(page_size=5)
    first = stub.ListSinkOffsets(request)
    request.page_token = first.next_page_token
    second = stub.ListSinkOffsets(request)
    names = [(each.sink, each.partition) for each in (*first.offsets, *second.offsets)]
    assert names == [(each.sink, each.partition) for each in before]
    assert not second.next_page_token


def test_a_sink_is_asked_as_soon_as_its_settings_can_be_used(
    setup: Setup, stub: cdc_pb2_grpc.OffsetServiceStub
) -> None:
    sinks = setup.specs.tree["sinks"]
    assert isinstance(sinks, dict)
    later = {**sinks["hook"], "secrets": ["${LATER}"]}
    setup.specs.tree = {**setup.specs.tree, "sinks": {**sinks, "later": later}}
    setup.specs.revision += 1
    assert {each.position for each in of(stub, "later")} == {-1}
    # What one of them lacks is of no concern to the others.
    assert {each.position for each in of(stub, "warehouse")} == {0}
    setup.environment["LATER"] = sinks["hook"]["secrets"][0]
    assert {each.position for each in of(stub, "later")} == {0}


def test_a_paused_sink_is_set_to_another_place(
    setup: Setup, stub: cdc_pb2_grpc.OffsetServiceStub
) -> None:
    setup.deliver().close()
    found = share(setup.nats, "warehouse", "CDC_shop", ["db.*"])
    assert found is not None
    claim = setup.sink("warehouse").claim(found)
    zombie = setup.sink("warehouse").open(claim)
    request = cdc_pb2.ResetSinkOffsetRequest(sink="warehouse", to=config_pb2.Start(beginning=True))
    with pytest.raises(grpc.RpcError) as raised:
        stub.ResetSinkOffset(request)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    setup.board.still.add("deliver/warehouse")

    def upto(to: config_pb2.Start, source: str = "") -> set[int]:
        request = cdc_pb2.ResetSinkOffsetRequest(sink="warehouse", to=to, source=source)
        told = {each.position for each in stub.ResetSinkOffset(request).offsets}
        assert told == set(setup.sink("warehouse").offsets(found).values())
        return told

    assert upto(config_pb2.Start(beginning=True)) == {0}
    with connect(setup.nats) as connection:
        assert "warehouse" not in progress(connection, "CDC_shop")
    with closing(zombie):
        zombie.write(Batch(claim, [], 30))
        with pytest.raises(FencedError):
            zombie.flush()
    assert upto(config_pb2.Start(end=True)) == {COUNT + 1}
    assert upto(config_pb2.Start(sequence=11), "shop") == {10}
    explorer = cdc_pb2.ListSinkOffsetsRequest(sink="warehouse")
    lag = sum(each.lag_messages for each in stub.ListSinkOffsets(explorer).offsets)
    assert lag == COUNT + 1 - 10
    moment = config_pb2.Start()
    moment.time.GetCurrentTime()
    assert upto(moment) == {COUNT + 1}
    moment.time.FromSeconds(1)
    assert upto(moment) == {0}


def test_a_sink_whose_offsets_lie_beside_the_streams_is_set_too(
    setup: Setup, stub: cdc_pb2_grpc.OffsetServiceStub
) -> None:
    setup.board.still.add("deliver/hook")
    request = cdc_pb2.ResetSinkOffsetRequest(
        sink="hook", source="shop", to=config_pb2.Start(sequence=6), request_id=str(uuid.uuid4())
    )
    answer = stub.ResetSinkOffset(request)
    assert {each.position for each in answer.offsets} == {5}
    found = share(setup.nats, "hook", "CDC_shop", ["db.users"])
    assert found is not None
    assert set(setup.sink("hook").offsets(found).values()) == {5}
    setup.sink("hook").reset(found, 9)
    # A request that is repeated is carried out once.
    assert stub.ResetSinkOffset(request) == answer
    assert set(setup.sink("hook").offsets(found).values()) == {9}
    request.to.sequence = 7
    with pytest.raises(grpc.RpcError) as raised:
        stub.ResetSinkOffset(request)
    assert refused(raised.value) == "request_id"


START = config_pb2.Start


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (cdc_pb2.ResetSinkOffsetRequest(to=START(end=True)), "sink"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="nobody", to=START(end=True)), "sink"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", source="away", to=START(end=True)), "source"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", source="x", to=START(end=True)), "source"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", to=START(time=Timestamp(seconds=1 << 50))),
         "to.time"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook"), "to"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", to=START(end=False)), "to.end"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", to=START(sequence=4)), "source"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", source="shop", to=START(sequence=0)),
         "to.sequence"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", source="shop", to=START(sequence=99)),
         "to.sequence"),
        (cdc_pb2.ResetSinkOffsetRequest(sink="hook", to=START(end=True), request_id="x"),
         "request_id"),
    ],
)  # fmt: skip
def test_a_reset_that_cannot_be_names_the_field(
    setup: Setup,
    stub: cdc_pb2_grpc.OffsetServiceStub,
    request_: cdc_pb2.ResetSinkOffsetRequest,
    field: str,
) -> None:
    setup.board.still.add("deliver/hook")
    with pytest.raises(grpc.RpcError) as raised:
        stub.ResetSinkOffset(request_)
    assert refused(raised.value) == field


def test_a_source_that_does_not_run_is_looked_after(setup: Setup, database: Database) -> None:
    assert setup.explorer.guard_source("nobody") is None
    assert setup.explorer.guard_source("shop") is None
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('own', 'pgoutput')")
        connection.execute("CREATE TABLE more AS SELECT generate_series(1, 1000) AS id")
    health = setup.explorer.guard_source("shop")
    assert health is not None
    assert health.retained > 10_000
    assert not health.endangered
    with pytest.raises(RetryableError):
        setup.explorer.guard_source("away")


def test_sources_tell_how_far_they_are(
    setup: Setup, stub: cdc_pb2_grpc.OffsetServiceStub, database: Database
) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('own', 'pgoutput')")
        (reached,) = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("",)
        change = row("shop", COUNT + 1, 1)
        setup.writer.write(
            [(subject("shop", "db.users", change), change)], {"lsn": str(reached), "system": "1"}
        )
        connection.execute("CREATE TABLE more AS SELECT generate_series(1, 1000) AS id")
        away, shop = stub.ListSourceOffsets(cdc_pb2.ListSourceOffsetsRequest()).offsets
        assert (away.source, away.stream, away.server_position) == ("away", "", "")
        assert (away.lag_bytes, away.slot) == (-1, "")
        assert (shop.source, shop.stream, shop.slot) == ("shop", "CDC_shop", "own")
        assert not shop.slot_active
        assert shop.position == change.position
        assert shop.lag_bytes > 10_000
        assert shop.retained_bytes >= shop.lag_bytes
        assert shop.lag_time.ToNanoseconds() > 0
        assert shop.checkpoint_time.seconds > 0
        (same,) = connection.execute(
            "SELECT %s::pg_lsn <= pg_current_wal_lsn() AND %s::pg_lsn > %s::pg_lsn",
            [shop.server_position, shop.server_position, reached],
        ).fetchone() or (False,)
        assert same
    (only,) = stub.ListSourceOffsets(cdc_pb2.ListSourceOffsetsRequest(source="shop")).offsets
    assert only.source == "shop"
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListSourceOffsets(cdc_pb2.ListSourceOffsetsRequest(source="nobody"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListSinkOffsets(cdc_pb2.ListSinkOffsetsRequest(sink="nobody"))
    assert refused(raised.value) == "sink"
