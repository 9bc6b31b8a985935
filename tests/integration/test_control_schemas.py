"""The versions of tables' shapes over the API and on the command line."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest

from connectors.contracts.changes import Change, Column, TableSchema
from connectors.contracts.source import Checkpoint
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stream import open_stream
from control.cli.app import run
from control.explorer.explorer import Explorer
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.services.calls import Workers
from control.services.message_service import MessageService
from control.services.schema_service import SchemaService
from tests.integration.control_explorer import FixedSpecs, listening, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

ID, NAME = Column("id", "integer", "number"), Column("name", "text")


def users(*columns: Column, key: tuple[str, ...] = ("id",), schema: str = "public") -> TableSchema:
    return TableSchema("shop", schema, "users, old", columns, key)


SHAPES = [users(ID), users(ID, NAME), users(ID), users(ID, NAME, key=("id", "name"))]

SPECS = FixedSpecs({"sources": {"shop": {"type": "postgres", "dsn": "x"}}})


@pytest.fixture
def nats(nats_factory: NatsFactory) -> NatsSpec:
    return NatsSpec(url=(nats_factory().url,))


@pytest.fixture
def stub(nats: NatsSpec) -> Iterator[cdc_pb2_grpc.SchemaServiceStub]:
    explorer = Explorer(nats, SPECS)
    workers = Workers()
    with (
        closing(explorer),
        closing(workers),
        serving(SchemaService(explorer, workers).register) as channel,
    ):
        yield cdc_pb2_grpc.SchemaServiceStub(channel)


def store(nats: NatsSpec, *shapes: TableSchema) -> None:
    """Note shapes at the positions 1, 2, 3 …, and store that all is captured."""
    with closing(Publisher(nats, open_stream(nats, "shop")[0])) as publisher:
        for number, shape in enumerate(shapes, 1):
            publisher.note(shape, f"{number}")
        publisher.publish((), Checkpoint("9", {"lsn": "9"}), {})
        publisher.flush()


def versions(stub: cdc_pb2_grpc.SchemaServiceStub) -> list[tuple[str, int, str]]:
    request = cdc_pb2.ListSchemasRequest(source="shop", page_size=2)
    found = []
    while True:
        answer = stub.ListSchemas(request)
        found += [(each.schema, each.version, each.first_position) for each in answer.schemas]
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


def test_versions_are_counted_once_their_changes_are_stored(
    nats: NatsSpec, stub: cdc_pb2_grpc.SchemaServiceStub
) -> None:
    assert versions(stub) == []
    with closing(Publisher(nats, open_stream(nats, "shop")[0])) as publisher:
        for number, shape in enumerate(SHAPES, 1):
            new = publisher.note(shape, f"{number}")
            assert new is not None
            assert (new.version.number, new.before) == (
                number,
                SHAPES[number - 2].hash if number > 1 else "",
            )
            assert publisher.note(shape, f"{number}5") is None
        publisher.note(users(ID, schema="öther"), "2")
        publisher.publish((), Checkpoint("2", {"lsn": "2"}), {})
        publisher.flush()
    stored = [("public", 1, "1"), ("public", 2, "2"), ("öther", 1, "2")]
    assert versions(stub) == stored
    # what was noted and never stored is counted again, as the same
    with closing(Publisher(nats, open_stream(nats, "shop")[0])) as publisher:
        assert publisher.note(SHAPES[1], "25") is None
        new = publisher.note(SHAPES[2], "3")
        assert new is not None
        assert new.version.number == 3
        publisher.publish((), Checkpoint("4", {"lsn": "4"}), {})
        publisher.flush()
    assert versions(stub) == [*stored[:2], ("public", 3, "3"), stored[2]]


def test_one_version_is_shown_with_its_columns(
    nats: NatsSpec, stub: cdc_pb2_grpc.SchemaServiceStub
) -> None:
    store(nats, *SHAPES, users(ID, schema="other"))
    wanted = cdc_pb2.GetSchemaRequest(source="shop", table="public.users, old")
    latest = stub.GetSchema(wanted)
    assert (latest.version, latest.hash, list(latest.key)) == (4, SHAPES[3].hash, ["id", "name"])
    assert [(each.name, each.type) for each in latest.columns] == [
        ("id", "integer"),
        ("name", "text"),
    ]
    wanted.version = 3
    assert stub.GetSchema(wanted).hash == SHAPES[2].hash
    for request, code, word in (
        (cdc_pb2.GetSchemaRequest(source="shop"), "INVALID_ARGUMENT", "name the table"),
        (
            cdc_pb2.GetSchemaRequest(source="shop", table="users, old"),
            "INVALID_ARGUMENT",
            "other.users, old, public.users, old",
        ),
        (cdc_pb2.GetSchemaRequest(source="shop", table="x"), "NOT_FOUND", "tables/x"),
        (
            cdc_pb2.GetSchemaRequest(source="shop", table="public.users, old", version=7),
            "NOT_FOUND",
            "versions/7",
        ),
        (cdc_pb2.GetSchemaRequest(source="none", table="x"), "NOT_FOUND", "sources/none"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetSchema(request)
        assert caught.value.code().name == code
        assert word in str(caught.value)


def test_a_message_tells_its_version(nats: NatsSpec) -> None:
    with closing(Publisher(nats, open_stream(nats, "shop")[0])) as publisher:
        for number, shape in enumerate(SHAPES[:3], 1):
            publisher.note(shape, f"{number}")
            row = Change("c", shape, f"{number}", '{"id":1}', "1", True, b"{}")
            publisher.publish([(f"CDC.shop.db.t.{number}", row)], Checkpoint(f"{number}", {}), {})
        made = Change("c", users(NAME), "4", '{"id":1}', "1", True, b"{}")
        publisher.publish([("CDC.shop.db.t.0", made)], Checkpoint("4", {}), {})
        publisher.flush()
    workers = Workers()
    with (
        closing(Explorer(nats, SPECS)) as explorer,
        closing(workers),
        serving(MessageService(explorer, workers).register) as channel,
    ):
        stub = cdc_pb2_grpc.MessageServiceStub(channel)
        found = [
            stub.GetMessage(
                cdc_pb2.GetMessageRequest(name=f"streams/CDC_shop/messages/{number}")
            ).schema_version
            for number in range(2, 6)
        ]
    # the third has the shape of the first; a transform has made that of the last
    assert found == [1, 2, 3, 0]


def test_the_command_lists_shows_and_compares(
    nats: NatsSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    store(nats, *SHAPES)
    workers = Workers()
    with (
        closing(Explorer(nats, SPECS)) as explorer,
        closing(workers),
        listening(SchemaService(explorer, workers).register) as address,
    ):

        def waxtap(*arguments: str) -> str:
            capsys.readouterr()
            assert run(["schemas", *arguments, "--server", address]) == 0
            return capsys.readouterr().out

        listed = json.loads(waxtap("shop", "-o", "json"))
        assert [each["version"] for each in listed] == [1, 2, 3, 4]
        assert "id integer, name text" in waxtap()
        assert "name    text     yes" in waxtap("shop", "users, old", "--version", "4")
        told = waxtap("shop", "users, old", "--version", "4", "--diff", "1")
        assert told.splitlines() == ["+ name text", "~ key (id) → (id, name)"]
        assert run(["schemas", "--version", "4", "--server", address]) == 2
