"""The reader of a stream against a real server: what arrives, and where it resumes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.contracts.sink import Batch, Claim
from connectors.contracts.source import Checkpoint
from connectors.jetstream import api
from connectors.jetstream.connection import Connection, connect
from connectors.jetstream.consumer import Consumer, share
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from tests.integration.streams import (
    SUBJECT,
    TABLE,
    Background,
    Open,
    change,
    claim,
    fill,
    position,
    positions,
    publish,
    read,
    until,
)

if TYPE_CHECKING:
    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers
OTHER = "CDC.shop.db.orders.0"


def _names(nats: NatsSpec) -> list[str]:
    with connect(nats) as connection:
        return api.consumer_names(connection, "CDC_shop")


def test_a_stream_that_does_not_exist_has_no_share(nats: NatsSpec) -> None:
    assert share(nats, "warehouse", "CDC_nothing", ["*"]) is None


def test_changes_arrive_as_they_were_stored(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 3)
    received = read(consume(claim(nats)), 3)

    first = received[0]
    assert [change.position for change in received] == positions(1, 3)
    assert first.sequence == 2
    assert first.subject == "CDC.shop.db.users.0"
    assert first.key == '{"id":1}'
    assert first.table == TABLE
    assert (first.transaction, first.last) == ("1", True)
    assert first.envelope == b"{}"


def test_a_consumer_resumes_behind_the_offset(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 10)
    received = read(consume(claim(nats, offset=6)), 5)
    assert [change.sequence for change in received] == [7, 8, 9, 10, 11]


def test_each_subject_has_an_offset_of_its_own(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 5)
    fill(publisher, 6, 5, OTHER)
    fill(publisher, 11, 2)
    right = claim(nats, ["db.users", "db.orders"])
    offsets = right.offsets | {"CDC.shop.db.users.*": 9, "CDC.shop.db.orders.*": 3}
    received = read(consume(Claim(right.share, 1, offsets)), 7)
    assert [change.position for change in received] == [*positions(6, 5), *positions(11, 2)]


def test_what_a_narrower_subject_has_is_not_repeated(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 5)
    fill(publisher, 6, 5, OTHER)
    fill(publisher, 11, 2)
    right = claim(nats, ["db.*"])
    offsets = right.offsets | {"CDC.shop.db.>": 0, "CDC.shop.db.users.*": 9}
    received = read(consume(Claim(right.share, 1, offsets)), 7)
    assert [change.position for change in received] == [*positions(6, 5), *positions(11, 2)]


def test_what_is_for_another_sink_is_passed_over(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 3)
    own = claim(nats)
    for first, count, sink in ((4, 3, "somebody"), (7, 2, own.share.sink)):
        part = [(SUBJECT, change(first + number)) for number in range(count)]
        publisher.publish(part, Checkpoint(part[-1][1].position, {}), {}, sink)
    publisher.flush()
    received = read(consume(own), 5)
    assert [change.position for change in received] == [*positions(1, 3), *positions(7, 2)]


def test_only_the_topics_asked_for_arrive(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    for first in range(1, 100, 10):
        fill(publisher, first, 5)
        fill(publisher, first + 5, 5, OTHER)
    received = read(consume(claim(nats, ["db.orders"])), 50)
    assert {change.subject for change in received} == {OTHER}
    assert len(received) == 50


def test_killing_the_server_skips_and_repeats_nothing(
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    consumer = consume(claim(nats))

    def work() -> None:
        for first in range(1, 8001, 100):
            fill(publisher, first, 100)

    running = Background(work)
    received = []
    for _ in range(5):
        received += read(consumer, 900)
        mortal_nats.kill()
        mortal_nats.start()
    received += read(consumer, 8000 - len(received))
    running.result()
    assert [change.position for change in received] == positions(1, 8000)


def test_a_deleted_consumer_is_made_again_under_another_name(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 5)
    consumer = consume(claim(nats, epoch=4))
    assert len(read(consumer, 5)) == 5
    assert _names(nats) == ["warehouse-4"]
    with connect(nats) as connection:
        api.delete_consumer(connection, "CDC_shop", "warehouse-4")
    fill(publisher, 6, 5)
    assert [change.position for change in read(consumer, 5)] == positions(6, 5)
    assert _names(nats) == ["warehouse-4_2"]


def test_consumers_of_older_claims_are_deleted(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 5)
    for epoch in (1, 3, 2):
        consume(claim(nats, epoch=epoch))
    right = claim(nats, epoch=1)
    other = share(nats, "warehouse-2", "CDC_shop", ["*"])
    assert other is not None
    consume(Claim(other, 1, right.offsets))
    # A newer claim's consumer is not the older one's business.
    assert sorted(_names(nats)) == ["warehouse-2", "warehouse-2-1", "warehouse-3"]


def test_confirming_moves_the_floor(nats: NatsSpec, publisher: Publisher, consume: Open) -> None:
    fill(publisher, 1, 50)
    consumer = consume(claim(nats))
    read(consumer, 50)

    def floor() -> object:
        with connect(nats) as connection:
            found = api.call(connection, "CONSUMER.INFO.CDC_shop.warehouse-1", None, dict)
        return found["ack_floor"]["stream_seq"]

    until(lambda: floor() == 51)


def test_what_a_sink_does_not_want_moves_its_offset(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 5)
    consumer = consume(claim(nats))
    assert len(read(consumer, 5)) == 5
    quiet = consume(claim(nats, ["db.orders"], epoch=2))
    seen = []

    def advanced() -> bool:
        batch = quiet.read()
        if batch is not None:
            assert batch.changes == []
            seen.append(batch.upto)
        return bool(seen)

    until(advanced)
    assert seen == [6]


def test_a_reader_of_everything_knows_where_no_transaction_is_cut(
    nats: NatsSpec, publisher: Publisher
) -> None:
    """Also one that ends in a topic which is not read, or that nothing follows."""
    first = change(1)._replace(transaction="a", last=False)
    second = change(2)._replace(transaction="a")
    publisher.publish([(SUBJECT, first)], Checkpoint(position(1), {"lsn": "1"}), {"lsn": "0"})
    publisher.flush()
    with closing(Consumer(nats, claim(nats, ["db.users"]), whole=True)) as reader:
        batch = next_of(reader)
        assert [found.position for found in batch.changes] == positions(1, 1)
        assert (batch.upto, batch.complete) == (2, 1)
        publisher.publish([(OTHER, second)], Checkpoint(position(2), {"lsn": "2"}), {"lsn": "1"})
        publisher.flush()
        batch = next_of(reader)
        assert (batch.changes, batch.upto, batch.complete) == ([], 3, 3)
        publisher.publish([], Checkpoint(position(2), {"lsn": "9"}), {"lsn": "2"})
        publisher.flush()
        batch = next_of(reader)
        assert (batch.changes, batch.upto, batch.complete) == ([], 4, 4)


def next_of(reader: Consumer) -> Batch:
    found: list[Batch] = []

    def arrived() -> bool:
        batch = reader.read()
        found.extend([batch] if batch is not None else [])
        return bool(found)

    until(arrived)
    return found[0]


def test_a_heartbeat_in_the_wrong_moment_does_not_hold_the_offset(
    nats: NatsSpec, publisher: Publisher, consume: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(publisher, 1, 5)
    assert len(read(consume(claim(nats)), 5)) == 5
    quiet = consume(claim(nats, ["db.orders"], epoch=2))
    look = api.next_message

    def beaten(
        connection: Connection, stream: str, sequence: int, subject: str
    ) -> api.StoredMessage | None:
        quiet._incoming.append((b"inbox", b"", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b""))
        return look(connection, stream, sequence, subject)

    monkeypatch.setattr(api, "next_message", beaten)
    upto: list[int] = []

    def advanced() -> bool:
        batch = quiet.read()
        if batch is not None:
            upto.append(batch.upto)
        return bool(upto)

    until(advanced, patience=8.0)
    assert upto == [6]


def test_large_rows_stay_within_the_pull_s_bytes(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    payload = b'"' + b"x" * 900_000 + b'"'
    for first in range(1, 61, 6):
        publish(publisher, first, 6, payload)
    publisher.flush()
    consumer = consume(claim(nats))
    received = read(consumer, 60)
    assert [change.position for change in received] == positions(1, 60)
    assert all(change.envelope == payload for change in received)


def test_a_reader_says_nothing_about_ordinary_reconnects(
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    consumer = consume(claim(nats))
    with capture_logs() as logs:
        mortal_nats.kill()
        assert consumer.read() is None
        mortal_nats.start()
        fill(publisher, 1, 3)
        assert len(read(consumer, 3)) == 3
    assert [entry["log_level"] for entry in logs if entry["log_level"] != "debug"] == [
        "warning",
        "info",
    ]
