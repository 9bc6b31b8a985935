"""Where a sink begins, and what it is told of the ends of transactions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.source import Checkpoint
from connectors.jetstream.begin import behind_end, behind_time, unfed
from connectors.jetstream.consumer import Consumer
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from tests.integration.streams import change, claim, position, publish, stored, until

if TYPE_CHECKING:
    from connectors.contracts.sink import Batch

pytestmark = pytest.mark.servers
USERS, ORDERS = "CDC.shop.db.users.0", "CDC.shop.db.orders.0"


def test_the_end_is_behind_the_last_message(nats: NatsSpec, publisher: Publisher) -> None:
    publish(publisher, 1, 7)
    publisher.flush()
    # The first message is the marker of the writer's claim.
    assert behind_end(nats, claim(nats).share) == 8


def test_a_time_is_a_place_in_the_stream(nats: NatsSpec, publisher: Publisher) -> None:
    share = claim(nats).share
    publish(publisher, 1, 3)
    publisher.flush()
    between = datetime.now(UTC)
    until(lambda: datetime.now(UTC) - between > timedelta(milliseconds=20))
    publish(publisher, 4, 3)
    publisher.flush()
    assert behind_time(nats, share, between + timedelta(milliseconds=10)) == 4
    assert behind_time(nats, share, between - timedelta(days=1)) == 0
    assert behind_time(nats, share, between + timedelta(days=1)) == 7


def test_topics_of_which_nothing_is_stored_are_known(nats: NatsSpec, publisher: Publisher) -> None:
    publish(publisher, 1, 2)
    publisher.flush()
    share = claim(nats, ["db.users", "db.usres", "orders.*"]).share
    assert unfed(nats, share) == ["CDC.shop.db.usres.*", "CDC.shop.orders.>"]
    assert unfed(nats, claim(nats).share) == []


def _publish(publisher: Publisher, *messages: tuple[str, int, str, bool]) -> None:
    """Messages as (subject, number, transaction, last)."""
    changes = [
        (subject, change(number)._replace(transaction=transaction, last=last))
        for subject, number, transaction, last in messages
    ]
    end = messages[-1][1]
    publisher.publish(changes, Checkpoint(position(end), {"lsn": str(end)}), {"lsn": "0"})
    publisher.flush()


def _read_until(consumer: Consumer, sequence: int) -> Batch:
    found: list[Batch] = []

    def there() -> bool:
        batch = consumer.read()
        if batch is not None:
            found.append(batch)
        return bool(found) and found[-1].upto >= sequence

    until(there)
    return found[-1]


def test_ends_of_transactions_are_known_whatever_topic_they_lie_in(
    nats: NatsSpec, publisher: Publisher
) -> None:
    _publish(
        publisher,
        (USERS, 1, "7", False),
        (ORDERS, 2, "7", True),
        (USERS, 3, "8", False),
    )
    right = claim(nats, ["db.users"])
    whole = Consumer(nats, right, whole=True)
    try:
        batch = _read_until(whole, 4)
        assert [one.position for one in batch.changes] == [position(1), position(3)]
        assert (batch.upto, batch.complete) == (4, 3)
        # The rest of the transaction concerns other topics; its mark was filtered out.
        _publish(publisher, (ORDERS, 4, "8", False))
        _publish(publisher, (ORDERS, 5, "9", True))
        batch = _read_until(whole, 6)
        assert batch.changes == []
        assert batch.complete == 6
    finally:
        whole.close()
    assert len(list(stored(nats))) == 6


def test_a_transaction_that_another_follows_has_ended(nats: NatsSpec, publisher: Publisher) -> None:
    _publish(publisher, (USERS, 1, "7", False), (USERS, 2, "8", False))
    consumer = Consumer(nats, claim(nats, ["db.users"]))
    try:
        assert _read_until(consumer, 3).complete == 2
    finally:
        consumer.close()
