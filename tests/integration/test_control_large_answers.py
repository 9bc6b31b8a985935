"""Pages and rows that are larger than an answer of the API may be."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest

from connectors.jetstream.spec import NatsSpec
from connectors.letters import Reason, State
from control.explorer.explorer import Explorer
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.servers.nats import NatsServer, find_nats_server
from control.services.calls import Repetitions, Workers
from control.services.dead_letter_service import DeadLetterService
from control.services.message_service import MessageService
from tests.integration.control_explorer import (
    FixedSpecs,
    Writer,
    listening,
    put_letters,
    refused,
    row,
    subject,
    told,
)
from tests.integration.explored import ASCENDING, BY_TIME, DESCENDING, NEWEST, listed
from tests.integration.streams import until
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.servers

MIB = 1024 * 1024
COUNT, LARGE, PREVIEW = 300, 20 * MIB, 64 * 1024
LARGE_ROW = row("big", 1, 1, text="é" * (LARGE // 2))
LETTER = "sinks/warehouse/streams/CDC_big/deadLetters/2"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two streams of 150 rows of 64 KiB, all of one key, and one of a row of 20 MiB, a letter."""
    program = obtain("nats", find_nats_server)
    with NatsServer(program=program, sync_interval="2m") as server:
        nats = NatsSpec(url=(server.url,))
        for source in ("even", "odd"):
            with closing(Writer(nats, source)) as writer:
                rows = [row(source, number, 1, text="z" * PREVIEW) for number in range(COUNT // 2)]
                writer.write([(subject(source, "db.users", each), each) for each in rows])
        with closing(Writer(nats, "big")) as writer:
            writer.write([("CDC.big.big.0", LARGE_ROW)])
        reason = Reason("PermanentError", "postgres.constraint", "it is too large")
        put_letters(nats, "warehouse", "big", "big", reason, {2: State.FAILED})
        specs = FixedSpecs({})
        workers, explorer = Workers(), Explorer(nats, specs)

        def register(to: grpc.aio.Server) -> None:
            MessageService(explorer, workers).register(to)
            DeadLetterService(nats, specs, workers, Repetitions(nats)).register(to)

        with closing(explorer), closing(workers), listening(register) as found:
            yield found


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    limit = [("grpc.max_receive_message_length", 16 * MIB)]
    with grpc.insecure_channel(address, limit) as channel:
        yield channel


def through(
    stub: cdc_pb2_grpc.MessageServiceStub, request: cdc_pb2.ListMessagesRequest
) -> list[str]:
    """All pages, none of which is too large."""
    found: list[str] = []
    while True:
        response = stub.ListMessages(request)
        assert response.ByteSize() < 9 * MIB
        assert all(len(each.payload) > PREVIEW - 100 for each in response.messages)
        found += listed(response)
        if not response.next_page_token:
            assert not response.incomplete
            return found
        assert response.incomplete
        request.page_token = response.next_page_token


@pytest.mark.parametrize("order", [ASCENDING, DESCENDING, BY_TIME, NEWEST])
@pytest.mark.parametrize("how", ["counted", "looked at", "by key"])
def test_a_page_ends_where_an_answer_is_full(channel: grpc.Channel, order: int, how: str) -> None:
    stub = cdc_pb2_grpc.MessageServiceStub(channel)
    choice = cdc_pb2.MessageFilter(topic="db.users")
    if how == "looked at":
        choice.text = "zzz"
    if how == "by key":
        choice.key = '{"id":1}'
        small = cdc_pb2.ListMessagesRequest(filter=choice, limit=1)
        until(lambda: stub.ListMessages(small).total_size == COUNT)
    request = cdc_pb2.ListMessagesRequest(filter=choice, limit=1000, preview_bytes=PREVIEW)
    request.order = order  # type: ignore[assignment]
    found = through(stub, request)
    assert len(found) == len(set(found)) == COUNT
    step = -1 if order in (DESCENDING, NEWEST) else 1
    for source in ("even", "odd"):
        mine = [each for each in found if each.startswith(source)]
        assert mine == [f"{source}/{number:020d}" for number in range(COUNT // 2)][::step]


def test_a_row_beyond_an_answer_is_cut_and_read_in_pieces(channel: grpc.Channel) -> None:
    stub = cdc_pb2_grpc.MessageServiceStub(channel)
    request = cdc_pb2.GetMessageRequest(name="streams/CDC_big/messages/2")
    message = stub.GetMessage(request)
    assert message.payload_cut
    assert message.size == len(LARGE_ROW.envelope) > 16 * MIB
    whole = LARGE_ROW.envelope.decode()
    assert whole.startswith(message.payload)
    assert len(message.payload.encode()) > 7 * MIB
    assert message.headers
    pieces = [piece.data for piece in stub.ReadMessagePayload(request)]
    assert b"".join(pieces) == LARGE_ROW.envelope
    assert max(map(len, pieces)) == MIB
    request.name = "streams/CDC_big/messages/3"
    with pytest.raises(grpc.RpcError) as raised:
        next(stub.ReadMessagePayload(request))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    request.name = "big/2"
    with pytest.raises(grpc.RpcError) as raised:
        next(stub.ReadMessagePayload(request))
    assert refused(raised.value) == "name"


def test_a_large_letter_is_cut_and_read_in_pieces(channel: grpc.Channel) -> None:
    stub = cdc_pb2_grpc.DeadLetterServiceStub(channel)
    request = cdc_pb2.GetDeadLetterRequest(name=LETTER)
    letter = stub.GetDeadLetter(request)
    assert letter.payload_cut
    assert (letter.size, letter.op) == (len(LARGE_ROW.envelope), "c")
    assert LARGE_ROW.envelope.decode().startswith(letter.payload)
    pieces = stub.ReadDeadLetterPayload(request)
    assert b"".join(piece.data for piece in pieces) == LARGE_ROW.envelope
    request.name = LETTER.replace("/2", "/3")
    with pytest.raises(grpc.RpcError) as raised:
        next(stub.ReadDeadLetterPayload(request))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_commands_show_large_rows_whole(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = told(["messages", "CDC_big/2", "-o", "json", "--server", address], capsys)
    assert status == 0
    assert json.loads(text)["payload"] == LARGE_ROW.envelope.decode()
    status, text = told(["dlq", "show", "-o", "json", "--server", address], capsys)
    assert status == 0
    assert json.loads(text)[0]["change"] == json.loads(LARGE_ROW.envelope)
    status, text = told(
        ["messages", "--topic", "db.users", "--limit", "300", "--preview", "65536", "-o", "json",
         "--server", address], capsys,
    )  # fmt: skip
    assert (status, len(json.loads(text))) == (0, COUNT)
