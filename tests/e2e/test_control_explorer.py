"""What the explorer tells of messages while a sink runs, lags, fails, parks and stands still."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest

from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc, config_pb2
from control.services.calls import Repetitions, Workers
from control.services.dead_letter_service import DeadLetterService
from control.services.message_service import MessageService
from control.services.offset_service import OffsetService
from tests.e2e.deployment import create_database
from tests.e2e.flows import SupervisedFlow
from tests.e2e.items import stop_cleanly, wait_for
from tests.integration.control_explorer import (
    FixedBoard,
    FixedSpecs,
    Writer,
    refused,
    row,
    serving,
    subject,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers

UNKNOWN = cdc_pb2.DELIVERY_STATE_UNSPECIFIED
UNSENT, SENT = cdc_pb2.DELIVERY_STATE_UNSENT, cdc_pb2.DELIVERY_STATE_SENT
FAILED, PARKED = cdc_pb2.DELIVERY_STATE_FAILED, cdc_pb2.DELIVERY_STATE_PARKED
TABLE = "CREATE TABLE users (id bigint PRIMARY KEY, name text CHECK (name NOT LIKE 'bad%'))"


class Looking:
    """Asks the explorer about `db.users` at the sink `warehouse`."""

    def __init__(self, stub: cdc_pb2_grpc.MessageServiceStub) -> None:
        self._stub = stub

    def states(self, sink: str = "warehouse") -> list[int]:
        """The state of every message, in order."""
        request = cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(topic="db.users"), order=cdc_pb2.ORDER_SEQUENCE_ASCENDING
        )
        return [
            next(each.state for each in message.deliveries if each.sink == sink)
            for message in self._stub.ListMessages(request).messages
        ]

    def chosen(self, *states: int) -> list[str]:
        """The transactions of the messages that are in one of these states."""
        request = cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(
                topic="db.users", sink="warehouse", states=states  # type: ignore[arg-type]
            ),
            order=cdc_pb2.ORDER_SEQUENCE_ASCENDING,
            limit=3,
        )  # fmt: skip
        found: list[str] = []
        while True:
            page = self._stub.ListMessages(request)
            found += [message.transaction for message in page.messages]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def error(self, transaction: str) -> str:
        request = cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(topic="db.users"), order=cdc_pb2.ORDER_SEQUENCE_ASCENDING
        )
        (name,) = [
            message.name
            for message in self._stub.ListMessages(request).messages
            if message.transaction == transaction
        ]
        message = self._stub.GetMessage(cdc_pb2.GetMessageRequest(name=name))
        return next(each.error for each in message.deliveries if each.sink == "warehouse")


def store(writer: Writer, changes: Sequence[tuple[int, int, str]]) -> None:
    """Store changes of the rows: number, key and text."""
    made = [row("shop", number, key, "u", text) for number, key, text in changes]
    writer.write([(subject("shop", "db.users", change), change) for change in made])


def check_letters(stub: cdc_pb2_grpc.DeadLetterServiceStub) -> None:
    """The letters of the transactions 6 and 8, both of the row 1, while the flow runs."""
    request = cdc_pb2.ListDeadLettersRequest(page_size=1)
    first = stub.ListDeadLetters(request)
    request.page_token = first.next_page_token
    second = stub.ListDeadLetters(request)
    assert (first.total_size, second.total_size, second.next_page_token) == (2, 2, "")
    (failed,), (parked,) = first.dead_letters, second.dead_letters
    assert (failed.state, parked.state) == (
        cdc_pb2.LETTER_STATE_FAILED,
        cdc_pb2.LETTER_STATE_PARKED,
    )
    assert (failed.sink, failed.stream, failed.topic) == ("warehouse", "CDC_shop", "db.users")
    assert (failed.key, failed.attempts, failed.error_code) == (
        '{"id":1}', 1, "postgres.constraint",
    )  # fmt: skip
    assert failed.failure_time.seconds > 0
    assert not failed.payload
    whole = stub.GetDeadLetter(cdc_pb2.GetDeadLetterRequest(name=failed.name))
    assert json.loads(whole.payload)["after"] == {"id": 1, "name": "bad"}
    assert whole.op == "u"

    def chosen(**conditions: object) -> list[int]:
        choice = cdc_pb2.DeadLetterFilter(**conditions)  # type: ignore[arg-type]
        found = stub.ListDeadLetters(cdc_pb2.ListDeadLettersRequest(filter=choice))
        return [letter.sequence for letter in found.dead_letters]

    both = [failed.sequence, parked.sequence]
    assert chosen(sink="warehouse", source="shop", topic="db.*", key='{"id": 1}') == both
    assert chosen(states=[cdc_pb2.LETTER_STATE_PARKED]) == both[1:]
    assert chosen(error_code="postgres.constraint") == both[:1]
    assert chosen(sequences=both[1:]) == both[1:]
    assert chosen(start_time=failed.failure_time, sequences=both[:1]) == both[:1]
    assert chosen(end_time=failed.failure_time) == []
    for other in ({"sink": "idle"}, {"source": "x"}, {"topic": "app"}, {"key": "2"}):
        assert chosen(**other) == []
    for wrong, field in (
        ({"states": [9]}, "filter.states[0]"),
        ({"sequences": [0]}, "filter.sequences[0]"),
        ({"topic": "a.*.b"}, "filter.topic"),
        ({"end_time": failed.failure_time, "start_time": failed.failure_time}, "filter.end_time"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            chosen(**wrong)
        assert refused(raised.value) == field
    with pytest.raises(grpc.RpcError) as raised:
        stub.DiscardDeadLetters(cdc_pb2.DiscardDeadLettersRequest())
    assert refused(raised.value) == "filter"
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetDeadLetter(cdc_pb2.GetDeadLetterRequest(name=f"{failed.name}0"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def test_states_are_right_while_a_sink_runs_lags_fails_and_parks(deployment: Deployment) -> None:
    nats = NatsSpec(url=(deployment.nats.url,))
    create_database(deployment.target, "idle")
    with psycopg.connect(deployment.target_dsn, autocommit=True) as target:
        target.execute(TABLE)
    postgres = {"type": "postgres", "dsn": "${WAREHOUSE_DSN}", "topics": ["db.*"]}
    tree = {
        "sources": {"shop": {"type": "postgres", "dsn": "${SHOP_DSN}", "snapshot": "never"}},
        "sinks": {
            "warehouse": postgres,
            "idle": {**postgres, "dsn": "${IDLE_DSN}"},
            "gone": {**postgres, "dsn": "host=127.0.0.1 port=1 dbname=gone"},
            "other": {**postgres, "topics": ["app.*"]},
        },
    }
    environment = deployment.environment("") | {"IDLE_DSN": deployment.target.dsn("idle")}
    workers, repetitions, board = Workers(), Repetitions(nats), FixedBoard()
    specs = FixedSpecs(tree)

    def register(server: grpc.aio.Server) -> None:
        MessageService(explorer, workers).register(server)
        DeadLetterService(nats, specs, workers, repetitions, patience=5.0).register(server)
        OffsetService(explorer, board.paused, workers, repetitions).register(server)

    with (
        closing(Writer(nats, "shop")) as writer,
        closing(Explorer(nats, specs, environment)) as explorer,
        serving(register) as channel,
    ):
        letters = cdc_pb2_grpc.DeadLetterServiceStub(channel)
        look = Looking(cdc_pb2_grpc.MessageServiceStub(channel))
        store(writer, [(number, number, "good") for number in range(1, 6)])
        assert look.states() == [UNSENT] * 5
        assert look.states("idle") == [UNSENT] * 5
        assert look.states("gone") == [UNKNOWN] * 5
        assert look.chosen(UNSENT) == numbers(1, 5)
        assert look.chosen(SENT) == []

        with SupervisedFlow(deployment, "deliver/warehouse") as flow:
            wait_for(lambda: look.states() == [SENT] * 5, "five rows are sent")

            # Of a batch only the last state of a row is written, so the bad one comes alone.
            store(writer, [(6, 1, "bad")])
            wait_for(lambda: look.states() == [SENT] * 5 + [FAILED], "a letter")
            store(writer, [(7, 2, "good"), (8, 1, "good"), (9, 3, "good")])
            after = [SENT] * 5 + [FAILED, SENT, PARKED, SENT]
            wait_for(lambda: look.states() == after, "a letter, and one behind it")
            assert look.chosen(FAILED) == ["6"]
            assert look.chosen(PARKED) == ["8"]
            assert look.chosen(FAILED, PARKED) == ["6", "8"]
            assert look.chosen(SENT) == [*numbers(1, 5), "7", "9"]
            assert look.chosen(SENT, FAILED) == [*numbers(1, 7), "9"]
            assert look.error("6").startswith("[postgres.constraint] ")

            check_letters(letters)

            with psycopg.connect(deployment.target_dsn) as lock:
                lock.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
                store(writer, [(number, number, "good") for number in range(10, 14)])
                behind = [*after, UNSENT, UNSENT, UNSENT, UNSENT]
                assert look.states() == behind
                assert look.chosen(UNSENT) == numbers(10, 13)
                assert look.chosen(UNSENT, PARKED) == ["8", *numbers(10, 13)]
            wait_for(lambda: look.states() == [*after, *[SENT] * 4], "the sink has caught up")

            # The two are one row, whose last state is good: together they are taken.
            everything = cdc_pb2.ReplayDeadLettersRequest(all=True)
            told = letters.ReplayDeadLetters(everything)
            assert (told.replayed, told.refused, told.unanswered) == (2, 0, 0)
            assert look.states() == [SENT] * 13
            store(writer, [(14, 4, "bad")])
            wait_for(lambda: look.states() == [*[SENT] * 13, FAILED], "another letter")
            told = letters.ReplayDeadLetters(everything)
            assert (told.replayed, told.refused, told.waiting) == (0, 1, 0)
            assert "users_name_check" in told.error
            store(writer, [(15, 5, "bad")])
            wait_for(lambda: look.states()[13:] == [FAILED] * 2, "one more")
            choice = cdc_pb2.DeadLetterFilter(key='{"id":5}')
            gone = letters.DiscardDeadLetters(cdc_pb2.DiscardDeadLettersRequest(filter=choice))
            assert (gone.discarded, gone.unanswered) == (1, 0)
            stop_cleanly(flow)

        # The flow stands still: its target is asked, and it does not lag behind what was sent.
        store(writer, [(16, 16, "good")])
        stopped = [*[SENT] * 13, FAILED, SENT, UNSENT]
        wait_for(lambda: look.states() == stopped, "one more is unsent")
        assert look.chosen(UNSENT) == ["16"]
        assert look.chosen(FAILED, UNSENT) == ["14", "16"]
        # Nobody answers: the request waits for the flow.
        unheard = letters.ReplayDeadLetters(everything)
        assert (unheard.replayed, unheard.unanswered) == (0, 1)

        # Set to its beginning, everything is given anew, and its letters are no more.
        board.still.add("deliver/warehouse")
        offsets = cdc_pb2_grpc.OffsetServiceStub(channel)
        with psycopg.connect(deployment.target_dsn, autocommit=True) as target:
            target.execute("ALTER TABLE users DROP CONSTRAINT users_name_check")
        offsets.ResetSinkOffset(
            cdc_pb2.ResetSinkOffsetRequest(sink="warehouse", to=config_pb2.Start(beginning=True))
        )
        assert look.states() == [UNSENT] * 16
        assert not letters.ListDeadLetters(cdc_pb2.ListDeadLettersRequest()).dead_letters
        with SupervisedFlow(deployment, "deliver/warehouse") as flow:
            wait_for(lambda: look.states() == [SENT] * 16, "everything is sent anew")
            request = cdc_pb2.ListSinkOffsetsRequest(sink="warehouse")
            # Acknowledgements follow one epoch later.
            wait_for(
                lambda: all(
                    each.ack_floor >= each.position and not each.unacknowledged
                    for each in offsets.ListSinkOffsets(request).offsets
                ),
                "everything is acknowledged",
            )
            stop_cleanly(flow)
        with psycopg.connect(deployment.target_dsn) as target:
            found = target.execute("SELECT id, name FROM users ORDER BY id").fetchall()
        rows = dict.fromkeys((*range(1, 6), *range(10, 14), 16), "good") | {4: "bad", 5: "bad"}
        assert dict(found) == rows
        store(writer, [(17, 17, "good")])
        wait_for(lambda: look.states() == [*[SENT] * 16, UNSENT], "one more is unsent")

        deployment.target.stop()
        # Without the target, what was acknowledged is known to be sent, and of the rest nothing.
        away = [*[SENT] * 16, UNKNOWN]
        wait_for(lambda: look.states() == away, "the target is away")
        assert look.chosen(UNSENT) == []
        # An answer counts for a second.
        wait_for(lambda: look.states("idle")[-1] == UNKNOWN, "nothing is known of the idle sink")
    workers.close()
