"""The reader of a stream against a real server: order, resumption, and every kind of loss."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from connectors.contracts.sink import Batch, Claim
from connectors.contracts.source import Checkpoint
from connectors.errors import GapError
from connectors.jetstream import api
from connectors.jetstream.connection import Connection, connect
from connectors.jetstream.consumer import Consumer, share
from connectors.jetstream.expiry import shortened
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stream import open_stream
from tests.integration.streams import (
    SUBJECT,
    TABLE,
    Background,
    change,
    claim,
    position,
    positions,
    publish,
    read,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from control.servers.nats import NatsServer
    from tests.servers.nats import NatsFactory

    Open = Callable[..., Consumer]

pytestmark = pytest.mark.servers
OTHER = "CDC.shop.db.orders.0"


@pytest.fixture
def server(nats_factory: NatsFactory) -> NatsServer:
    return nats_factory()


@pytest.fixture
def nats(server: NatsServer) -> NatsSpec:
    return NatsSpec(url=(server.url,))


@pytest.fixture
def publisher(nats: NatsSpec) -> Iterator[Publisher]:
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    yield publisher
    publisher.close()


@pytest.fixture
def consume(nats: NatsSpec) -> Iterator[Open]:
    made: list[Consumer] = []

    def make(right: Claim, *accept: str) -> Consumer:
        made.append(Consumer(nats, right, accept))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close()


def _fill(publisher: Publisher, first: int, count: int, subject: str = "") -> None:
    if subject:
        publish(publisher, first, count, subject=subject)
    else:
        publish(publisher, first, count)
    publisher.flush()


def _names(nats: NatsSpec) -> list[str]:
    with connect(nats) as connection:
        return api.consumer_names(connection, "CDC_shop")


def test_a_stream_that_does_not_exist_has_no_share(nats: NatsSpec) -> None:
    assert share(nats, "warehouse", "CDC_nothing", ["*"]) is None


def test_changes_arrive_as_they_were_stored(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 3)
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
    _fill(publisher, 1, 10)
    received = read(consume(claim(nats, offset=6)), 5)
    assert [change.sequence for change in received] == [7, 8, 9, 10, 11]


def test_each_subject_has_an_offset_of_its_own(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 5)
    _fill(publisher, 6, 5, OTHER)
    _fill(publisher, 11, 2)
    right = claim(nats, ["db.users", "db.orders"])
    offsets = right.offsets | {"CDC.shop.db.users.*": 9, "CDC.shop.db.orders.*": 3}
    received = read(consume(Claim(right.share, 1, offsets)), 7)
    assert [change.position for change in received] == [*positions(6, 5), *positions(11, 2)]


def test_what_a_narrower_subject_has_is_not_repeated(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 5)
    _fill(publisher, 6, 5, OTHER)
    _fill(publisher, 11, 2)
    right = claim(nats, ["db.*"])
    offsets = right.offsets | {"CDC.shop.db.>": 0, "CDC.shop.db.users.*": 9}
    received = read(consume(Claim(right.share, 1, offsets)), 7)
    assert [change.position for change in received] == [*positions(6, 5), *positions(11, 2)]


def test_only_the_topics_asked_for_arrive(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    for first in range(1, 100, 10):
        _fill(publisher, first, 5)
        _fill(publisher, first + 5, 5, OTHER)
    received = read(consume(claim(nats, ["db.orders"])), 50)
    assert {change.subject for change in received} == {OTHER}
    assert len(received) == 50


def test_killing_the_server_skips_and_repeats_nothing(
    server: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    consumer = consume(claim(nats))

    def work() -> None:
        for first in range(1, 8001, 100):
            _fill(publisher, first, 100)

    running = Background(work)
    received = []
    for _ in range(5):
        received += read(consumer, 900)
        server.kill()
        server.start()
    received += read(consumer, 8000 - len(received))
    running.result()
    assert [change.position for change in received] == positions(1, 8000)


def test_a_deleted_consumer_is_made_again_under_another_name(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 5)
    consumer = consume(claim(nats, epoch=4))
    assert len(read(consumer, 5)) == 5
    assert _names(nats) == ["warehouse-4"]
    with connect(nats) as connection:
        api.delete_consumer(connection, "CDC_shop", "warehouse-4")
    _fill(publisher, 6, 5)
    assert [change.position for change in read(consumer, 5)] == positions(6, 5)
    assert _names(nats) == ["warehouse-4_2"]


def test_consumers_of_older_claims_are_deleted(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 5)
    for epoch in (1, 3, 2):
        consume(claim(nats, epoch=epoch))
    right = claim(nats, epoch=1)
    other = share(nats, "warehouse-2", "CDC_shop", ["*"])
    assert other is not None
    consume(Claim(other, 1, right.offsets))
    # A newer claim's consumer is not the older one's business.
    assert sorted(_names(nats)) == ["warehouse-2", "warehouse-2-1", "warehouse-3"]


def test_confirming_moves_the_floor(nats: NatsSpec, publisher: Publisher, consume: Open) -> None:
    _fill(publisher, 1, 50)
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
    _fill(publisher, 1, 5)
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
    _fill(publisher, 1, 5)
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


def test_expired_messages_are_a_gap_until_accepted(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 10)
    with connect(nats) as connection:
        api.call(connection, "STREAM.PURGE.CDC_shop", {"seq": 8}, api.Refusal)
    with pytest.raises(GapError) as caught:
        consume(claim(nats, offset=3))
    assert caught.value.code == "jetstream.gap"
    assert "gap:CDC_shop@4-7" in caught.value.cure
    with pytest.raises(GapError):
        consume(claim(nats, offset=3), "gap:CDC_shop@4-6")
    for accepted in ("gap:CDC_shop@4-7", "gap:CDC_shop@4-"):
        received = read(consume(claim(nats, offset=3), accepted), 4)
        assert [change.sequence for change in received] == [8, 9, 10, 11]
    assert len(read(consume(claim(nats, offset=7)), 4)) == 4


def test_messages_that_vanish_during_an_outage_are_a_gap(
    server: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 10)
    consumer = consume(claim(nats))
    read(consumer, 10)
    server.suspend()
    server.resume()
    with connect(nats) as connection:
        api.delete_consumer(connection, "CDC_shop", "warehouse-1")
        _fill(publisher, 11, 10)
        api.call(connection, "STREAM.PURGE.CDC_shop", {"keep": 1}, api.Refusal)

    def gap() -> bool:
        consumer.read()
        return False

    with pytest.raises(GapError) as caught:
        until(gap)
    assert "gap:CDC_shop@12-20" in caught.value.cure


def test_a_stream_that_was_made_again_ends_the_reader(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    _fill(publisher, 1, 10)
    right = claim(nats)
    consumer = consume(right)
    with connect(nats) as connection:
        api.call(connection, "STREAM.DELETE.CDC_shop", None, api.Refusal)
    open_stream(nats, "shop")

    def replaced() -> bool:
        consumer.read()
        return False

    with pytest.raises(GapError) as caught:
        until(replaced)
    assert caught.value.code == "jetstream.stream_replaced"
    consumer.close()
    with connect(nats) as connection:
        assert connection.users == 2, "the publisher's and this one"
    with pytest.raises(GapError):
        consume(right)


def test_a_truncated_stream_is_refused_until_accepted(
    server: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open, tmp_path: Path
) -> None:
    _fill(publisher, 1, 10)
    publisher.close()
    server.kill()
    shutil.copytree(server.folder / "jetstream", tmp_path / "backup")
    server.start()
    again = Publisher(nats, open_stream(nats, "shop")[0])
    _fill(again, 11, 10)
    again.close()
    server.kill()
    shutil.rmtree(server.folder / "jetstream")
    shutil.copytree(tmp_path / "backup", server.folder / "jetstream")
    server.start()

    right = claim(nats, offset=21)
    token = "truncated:CDC_shop@11<21"
    with pytest.raises(GapError) as caught:
        shortened(nats, right, ())
    assert token in caught.value.cure
    # Not even then: the target would still leave out what it believes to have.
    with pytest.raises(GapError):
        consume(right, token)
    found = shortened(nats, right, [token])
    assert found == replace(right.share, end=11)
    right = claim(nats, offset=11)
    assert shortened(nats, right, ()) is None
    consumer = consume(right)
    last = Publisher(nats, open_stream(nats, "shop")[0])
    _fill(last, 11, 2)
    last.close()
    # What was stored since is not a part of the loss.
    later = shortened(nats, claim(nats, offset=21), [token])
    assert later == replace(right.share, end=11)
    assert [change.position for change in read(consumer, 2)] == positions(11, 2)


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
    server: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    consumer = consume(claim(nats))
    with capture_logs() as logs:
        server.kill()
        assert consumer.read() is None
        server.start()
        _fill(publisher, 1, 3)
        assert len(read(consumer, 3)) == 3
    assert [entry["log_level"] for entry in logs if entry["log_level"] != "debug"] == [
        "warning",
        "info",
    ]
