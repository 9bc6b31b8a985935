"""What the explorer tells of messages while a sink runs, lags, fails, parks and stands still."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.services.calls import Workers
from control.services.message_service import MessageService
from tests.e2e.deployment import create_database
from tests.e2e.flows import SupervisedFlow
from tests.e2e.items import stop_cleanly, wait_for
from tests.integration.control_explorer import FixedSpecs, Writer, row, serving, subject

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


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def test_states_are_right_while_a_sink_runs_lags_fails_and_parks(deployment: Deployment) -> None:
    nats = NatsSpec(url=(deployment.nats.url,))
    create_database(deployment.target, "idle")
    with psycopg.connect(deployment.target_dsn, autocommit=True) as target:
        target.execute(TABLE)
    postgres = {"type": "postgres", "dsn": "${WAREHOUSE_DSN}", "topics": ["db.*"]}
    tree = {
        "sources": {"shop": {"type": "postgres", "dsn": "${SHOP_DSN}"}},
        "sinks": {
            "warehouse": postgres,
            "idle": {**postgres, "dsn": "${IDLE_DSN}"},
            "gone": {**postgres, "dsn": "host=127.0.0.1 port=1 dbname=gone"},
            "other": {**postgres, "topics": ["app.*"]},
        },
    }
    environment = deployment.environment("") | {"IDLE_DSN": deployment.target.dsn("idle")}
    workers = Workers()
    with (
        closing(Writer(nats, "shop")) as writer,
        closing(Explorer(nats, FixedSpecs(tree), environment)) as explorer,
        serving(
            lambda server: cdc_pb2_grpc.add_MessageServiceServicer_to_server(
                MessageService(explorer, workers), server
            )
        ) as channel,
    ):
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

            with psycopg.connect(deployment.target_dsn) as lock:
                lock.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
                store(writer, [(number, number, "good") for number in range(10, 14)])
                behind = [*after, UNSENT, UNSENT, UNSENT, UNSENT]
                assert look.states() == behind
                assert look.chosen(UNSENT) == numbers(10, 13)
                assert look.chosen(UNSENT, PARKED) == ["8", *numbers(10, 13)]
            wait_for(lambda: look.states() == [*after, *[SENT] * 4], "the sink has caught up")
            stop_cleanly(flow)

        # The flow stands still: its target is asked, and it does not lag behind what was sent.
        store(writer, [(14, 14, "good")])
        stopped = [*after, *[SENT] * 4, UNSENT]
        wait_for(lambda: look.states() == stopped, "one more is unsent")
        assert look.chosen(UNSENT) == ["14"]

        deployment.target.stop()
        # Without the target, what was acknowledged is known to be sent, and of the rest nothing.
        away = [*after, *[SENT] * 4, UNKNOWN]
        wait_for(lambda: look.states() == away, "the target is away")
        assert look.chosen(UNSENT) == []
        assert look.states("idle")[-1] == UNKNOWN
    workers.close()
