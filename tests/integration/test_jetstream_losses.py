"""The reader of a stream against a real server: every kind of loss."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from connectors.errors import GapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.expiry import shortened
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stream import open_stream
from tests.integration.streams import Open, claim, fill, positions, read, until

if TYPE_CHECKING:
    from pathlib import Path

    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers


def test_expired_messages_are_a_gap_until_accepted(
    nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 10)
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
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open
) -> None:
    fill(publisher, 1, 10)
    consumer = consume(claim(nats))
    read(consumer, 10)
    mortal_nats.suspend()
    mortal_nats.resume()
    with connect(nats) as connection:
        api.delete_consumer(connection, "CDC_shop", "warehouse-1")
        fill(publisher, 11, 10)
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
    fill(publisher, 1, 10)
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
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher, consume: Open, tmp_path: Path
) -> None:
    fill(publisher, 1, 10)
    publisher.close()
    mortal_nats.kill()
    shutil.copytree(mortal_nats.folder / "jetstream", tmp_path / "backup")
    mortal_nats.start()
    again = Publisher(nats, open_stream(nats, "shop")[0])
    fill(again, 11, 10)
    again.close()
    mortal_nats.kill()
    shutil.rmtree(mortal_nats.folder / "jetstream")
    shutil.copytree(tmp_path / "backup", mortal_nats.folder / "jetstream")
    mortal_nats.start()

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
    fill(last, 11, 2)
    last.close()
    # What was stored since is not a part of the loss.
    later = shortened(nats, claim(nats, offset=21), [token])
    assert later == replace(right.share, end=11)
    assert [change.position for change in read(consumer, 2)] == positions(11, 2)
