"""The writer of a stream against a real server: what is stored, whatever happens meanwhile."""

from __future__ import annotations

import random
import shutil
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError, FencedError, GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.frames import read_checkpoint
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.schemas import SchemaStore
from connectors.jetstream.spec import NatsSpec, StreamSpec
from connectors.jetstream.stream import StreamClaim, open_stream, verify_not_behind
from tests.integration.streams import (
    TABLE,
    Background,
    change,
    changes,
    position,
    positions,
    publish,
    stored,
    stored_positions,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers


@pytest.fixture
def opened(nats: NatsSpec) -> StreamClaim:
    return open_stream(nats, "shop")[0]


@pytest.fixture
def publisher(nats: NatsSpec, opened: StreamClaim) -> Iterator[Publisher]:
    publisher = Publisher(nats, opened)
    yield publisher
    publisher.close()


def test_changes_are_stored_in_order_with_their_checkpoint(
    nats: NatsSpec, publisher: Publisher
) -> None:
    publish(publisher, 1, 700)
    publish(publisher, 701, 300)
    publisher.flush()

    assert stored_positions(nats) == positions(1, 1000)
    assert publisher.state()["sequence"] == 1001
    _, checkpoint = open_stream(nats, "shop")
    assert checkpoint == Checkpoint(position(1000), {"lsn": "1000"})


def test_the_longest_key_and_table_of_a_request_are_stored(
    nats: NatsSpec, publisher: Publisher
) -> None:
    """What the webhook source lets in at most; JetStream takes 64 KiB of headers."""
    key = '{"id":"%s"}' % ("x" * (32 * 1024 - 9))
    subject = f"CDC.shop.db.{'t' * 255}.0"
    messages = [(subject, change(number)._replace(key=key)) for number in (1, 2)]
    publisher.publish(messages, Checkpoint(position(2), {"lsn": "2"}), {"lsn": "0"})
    publisher.flush()
    assert stored_positions(nats) == positions(1, 2)


def test_a_large_chunk_is_cut_and_each_cut_resumes_inside(
    nats: NatsSpec, publisher: Publisher
) -> None:
    messages = changes(1, 2500)
    # The change behind the first thousand goes to two subjects, which stay together.
    messages.insert(1000, ("CDC.shop.audit.0", messages[999][1]))
    publisher.publish(messages, Checkpoint(position(2500), {"lsn": "2500"}), {"lsn": "0"})
    publisher.flush()

    marks = [
        (mark.position, mark.state)
        for mark in (read_checkpoint(message.hdrs, "CDC_shop") for message in stored(nats))
        if mark is not None and mark.base < 0
    ]
    assert marks == [
        (position(999), {"lsn": "0"}),
        (position(1998), {"lsn": "0"}),
        (position(2500), {"lsn": "2500"}),
    ]


def test_no_messages_store_the_checkpoint_alone(nats: NatsSpec, publisher: Publisher) -> None:
    publisher.publish([], Checkpoint(position(7), {"lsn": "7"}), {})
    publisher.flush()

    assert stored_positions(nats) == []
    assert open_stream(nats, "shop")[1] == Checkpoint(position(7), {"lsn": "7"})


def test_the_shape_is_stored_before_the_change(nats: NatsSpec, publisher: Publisher) -> None:
    publish(publisher, 1, 1)
    publisher.flush()

    with connect(nats) as connection:
        assert SchemaStore(connection).get(TABLE.hash) == TABLE


def test_killing_the_server_loses_and_repeats_nothing(
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher
) -> None:
    chance = random.Random(5)
    sent = threading.Semaphore(0)

    def work() -> None:
        for first in range(1, 10_001, 200):
            publish(publisher, first, 200, b'{"after":"' + b"x" * 300 + b'"}')
            sent.release()
        publisher.flush()

    running = Background(work)
    for _ in range(6):
        for _ in range(chance.randint(3, 8)):
            assert sent.acquire(timeout=30)
        mortal_nats.kill()
        mortal_nats.start()
    running.result()

    assert stored_positions(nats) == positions(1, 10_000)


def test_an_older_writer_is_fenced(
    nats: NatsSpec, opened: StreamClaim, publisher: Publisher
) -> None:
    publish(publisher, 1, 10)
    publisher.flush()
    newer, checkpoint = open_stream(nats, "shop")
    assert checkpoint is not None
    assert checkpoint.position == position(10)
    publish(publisher, 11, 10)
    with pytest.raises(FencedError) as caught:
        publisher.flush()
    assert caught.value.code == "jetstream.fenced"

    successor = Publisher(nats, newer)
    publish(successor, 11, 5)
    successor.flush()
    successor.close()
    assert stored_positions(nats) == positions(1, 15)


def test_batches_sent_before_the_fence_never_follow_it(
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher
) -> None:
    """A frozen server holds the old writer's batches; the claim of the new one comes after."""
    publish(publisher, 1, 10)
    publisher.flush()
    mortal_nats.suspend()
    for first in (11, 311, 611):
        publish(publisher, first, 300)
    mortal_nats.resume()
    _, checkpoint = open_stream(nats, "shop")
    held = stored_positions(nats)
    assert checkpoint is not None
    assert held == positions(1, int(checkpoint.position))
    with pytest.raises(FencedError):
        _publish_and_flush(publisher, 911, 10)
    assert stored_positions(nats) == held


def _publish_and_flush(publisher: Publisher, first: int, count: int) -> None:
    publish(publisher, first, count)
    publisher.flush()


def test_a_full_stream_pushes_back_until_there_is_room(mortal_nats: NatsServer) -> None:
    nats = NatsSpec(url=(mortal_nats.url,), stream=StreamSpec(max_bytes=400_000))
    opened, _ = open_stream(nats, "shop")
    publisher = Publisher(nats, opened)
    payload = b'"' + b"x" * 700 + b'"'

    def work() -> None:
        for first in range(1, 1001, 100):
            publish(publisher, first, 100, payload)
        publisher.flush()

    with capture_logs() as logs:
        running = Background(work)
        until(lambda: any("the stream is full" in entry["event"] for entry in logs))
        full = stored_positions(nats)
        assert full == positions(1, len(full))
        assert running.running()
        with connect(nats) as connection:
            while running.running():
                end = _last_sequence(nats)
                # All but the last message, which holds the checkpoint.
                api.call(connection, "STREAM.PURGE.CDC_shop", {"keep": 1}, api.Refusal)
                until(partial(_ended_or_moved, running, nats, end))
        running.result()
    publisher.close()

    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    again = [entry for entry in logs if entry["event"] == "the stream takes messages again"]
    assert len(warnings) == len(again) > 0
    _, checkpoint = open_stream(nats, "shop")
    assert checkpoint == Checkpoint(position(1000), {"lsn": "1000"})


def _ended_or_moved(running: Background, nats: NatsSpec, end: int) -> bool:
    return not running.running() or _last_sequence(nats) > end


def _last_sequence(nats: NatsSpec) -> int:
    with connect(nats) as connection:
        info = api.stream_info(connection, "CDC_shop")
        assert info is not None
        return info.state.last_seq


def test_an_outage_is_waited_out_and_told_once(
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher
) -> None:
    with capture_logs() as logs:
        publish(publisher, 1, 10)
        publisher.flush()
        mortal_nats.kill()
        for first in (11, 311, 611, 911):
            publish(publisher, first, 300)
        running = Background(partial(_publish_and_flush, publisher, 1211, 300))
        until(lambda: any("lost" in entry["event"] for entry in logs))
        assert running.running()
        mortal_nats.start()
        running.result()

    assert stored_positions(nats) == positions(1, 1510)
    events = [entry["event"] for entry in logs]
    assert events.count("connection to NATS lost, reconnecting") == 1
    assert events.count("connection to NATS is back") == 1


def test_a_stopping_flow_gets_out_of_an_outage(
    mortal_nats: NatsServer, nats: NatsSpec, opened: StreamClaim
) -> None:
    interrupt = threading.Event()
    publisher = Publisher(nats, opened, interrupt)
    publish(publisher, 1, 10)
    publisher.flush()
    mortal_nats.kill()
    publish(publisher, 11, 10)
    running = Background(publisher.flush)
    interrupt.set()
    with pytest.raises(RetryableError) as caught:
        running.result()
    assert caught.value.code == "jetstream.unreachable"
    publisher.close()


def test_a_stopping_flow_still_flushes_on_a_healthy_server(
    nats: NatsSpec, opened: StreamClaim
) -> None:
    interrupt = threading.Event()
    interrupt.set()
    publisher = Publisher(nats, opened, interrupt)
    publish(publisher, 1, 3000)
    publisher.flush()
    publisher.close()
    assert stored_positions(nats) == positions(1, 3000)


def test_a_stream_that_was_made_again_ends_the_writer(nats: NatsSpec, publisher: Publisher) -> None:
    publish(publisher, 1, 10)
    publisher.flush()
    state = publisher.state()
    with connect(nats) as connection:
        api.call(connection, "STREAM.DELETE.CDC_shop", None, api.Refusal)
    publish(publisher, 11, 10)
    with pytest.raises(GapError) as caught:
        publisher.flush()
    assert caught.value.code == "jetstream.stream_replaced"

    open_stream(nats, "shop")
    with capture_logs() as logs:
        verify_not_behind(nats, state)
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_truncated_stream_ends_the_writer_and_is_refused_until_accepted(
    mortal_nats: NatsServer, nats: NatsSpec, publisher: Publisher, tmp_path: Path
) -> None:
    publish(publisher, 1, 10)
    publisher.flush()
    mortal_nats.kill()
    shutil.copytree(mortal_nats.folder / "jetstream", tmp_path / "backup")
    mortal_nats.start()
    publish(publisher, 11, 10)
    publisher.flush()
    state = publisher.state()
    assert state["sequence"] == 21
    mortal_nats.kill()
    shutil.rmtree(mortal_nats.folder / "jetstream")
    shutil.copytree(tmp_path / "backup", mortal_nats.folder / "jetstream")
    mortal_nats.start()
    until(lambda: publisher._connection.connected)
    publish(publisher, 21, 10)
    with pytest.raises(GapError) as caught:
        publisher.flush()
    assert caught.value.code == "jetstream.truncated"

    # Each refused start claims the stream anew; the loss that it names stays the same.
    for _ in range(12):
        open_stream(nats, "shop")
        with pytest.raises(GapError, match=r"truncated:CDC_shop@11<21"):
            verify_not_behind(nats, state)
    verify_not_behind(nats, state, ["truncated:CDC_shop@11<21"])


def test_what_was_claimed_but_not_written_is_not_behind(
    nats: NatsSpec, publisher: Publisher
) -> None:
    state = publisher.state()
    open_stream(nats, "shop")
    verify_not_behind(nats, state)
    publish(publisher, 1, 1)
    with pytest.raises(FencedError):
        publisher.flush()


def test_a_purge_while_writing_is_no_harm_to_the_writer(
    nats: NatsSpec, publisher: Publisher
) -> None:
    publish(publisher, 1, 10)
    publisher.flush()
    with connect(nats) as connection:
        api.call(connection, "STREAM.PURGE.CDC_shop", None, api.Refusal)
    publish(publisher, 11, 10)
    publisher.flush()
    assert stored_positions(nats) == positions(11, 10)


def test_a_foreign_message_ends_the_writer(nats: NatsSpec, publisher: Publisher) -> None:
    publish(publisher, 1, 10)
    publisher.flush()
    with connect(nats) as connection:
        connection.request("CDC.shop.theirs.0", b"hello")
    publish(publisher, 11, 1)
    with pytest.raises(GapError) as caught:
        publisher.flush()
    assert caught.value.code == "jetstream.foreign_writer"


def test_the_last_checkpoint_never_expires(mortal_nats: NatsServer) -> None:
    nats = NatsSpec.model_validate({"url": mortal_nats.url, "stream": {"max_age": "2s"}})
    opened, _ = open_stream(nats, "shop")
    publisher = Publisher(nats, opened)
    publish(publisher, 1, 1)
    publisher.flush()
    until(lambda: position(1) not in stored_positions(nats))
    publisher.close()
    _, checkpoint = open_stream(nats, "shop")
    assert checkpoint == Checkpoint(position(1), {"lsn": "1"})


def test_switching_atomic_batches_off_is_named(nats: NatsSpec, publisher: Publisher) -> None:
    with connect(nats) as connection:
        info = api.stream_info(connection, "CDC_shop")
        assert info is not None
        api.update_stream(connection, info.config | {"allow_atomic": False})
    publish(publisher, 1, 5)
    with pytest.raises(ConfigError) as caught:
        publisher.flush()
    assert caught.value.code == "jetstream.refused"
    assert stored_positions(nats) == []


def test_changes_of_messages_carry_no_shape(nats: NatsSpec, publisher: Publisher) -> None:
    bare = change(1)._replace(op="m", table=None, key=None, transaction="", last=False)
    publisher.publish([("CDC.shop.messages.0", bare)], Checkpoint(position(1), {}), {})
    publisher.flush()
    [message] = [entry for entry in stored(nats) if entry.subject == "CDC.shop.messages.0"]
    assert b"Cdc-Schema" not in message.hdrs
    assert b"Cdc-Key" not in message.hdrs
    assert b"Cdc-Tx" not in message.hdrs
