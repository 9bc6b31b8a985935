"""Claims and offsets kept in the bucket `CDC_OFFSETS` of a real server."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from connectors.contracts.sink import Claim, Share
from connectors.errors import ConfigError, FencedError, GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.offsets import BUCKET, KvOffsets
from connectors.jetstream.spec import NatsSpec
from tests.integration.streams import Background, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.jetstream.connection import Connection
    from control.servers.nats import NatsServer
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

ITEMS, ORDERS = "CDC.shop.db.items.*", "CDC.shop.db.orders.*"
ALL = "CDC.shop.db.>"
SHARE = Share("hook", "CDC_shop", "2026-01-02T03:04:05.678901234Z", (ITEMS, ORDERS))
KEY = f"$KV.{BUCKET}.hook.CDC_shop"

# What docs/jetstream.md adds to a delivery user's permissions for such a sink.
PERMISSIONS = """
    publish: {allow: [
      "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*",
      "$JS.API.STREAM.CREATE.KV_CDC_OFFSETS", "$KV.CDC_OFFSETS.hook.*"
    ]}
"""


@pytest.fixture
def connection(nats: NatsSpec) -> Iterator[Connection]:
    with connect(nats) as connection:
        yield connection


def claimed(nats: NatsSpec, *subjects: str, begin: int = 0, end: int | None = None) -> Claim:
    """A claim as a new process would make it."""
    share = replace(SHARE, subjects=subjects or SHARE.subjects, begin=begin, end=end)
    return KvOffsets(nats).claim(share)


def test_the_first_claim_starts_at_nothing_and_later_ones_where_it_stands(nats: NatsSpec) -> None:
    offsets = KvOffsets(nats)
    claim = offsets.claim(SHARE)
    assert claim == Claim(SHARE, claim.epoch, {ITEMS: 0, ORDERS: 0})
    offsets.store(claim, 5)
    offsets.store(claim, 12)
    offsets.store(claim, 7)  # never back
    again = claimed(nats)
    assert again.epoch > claim.epoch
    assert again.offsets == {ITEMS: 12, ORDERS: 12}


def test_an_older_claim_stores_nothing(nats: NatsSpec) -> None:
    first, second = KvOffsets(nats), KvOffsets(nats)
    old = first.claim(SHARE)
    first.store(old, 5)
    new = second.claim(SHARE)
    for _ in range(2):  # it stays so
        with pytest.raises(FencedError) as caught:
            first.store(old, 9)
        assert "CDC_shop" in str(caught.value)
    second.store(new, 6)
    with pytest.raises(FencedError):
        second.store(old, 9)  # nor by the store of the newer one
    assert claimed(nats).offsets == {ITEMS: 6, ORDERS: 6}


def test_of_claims_at_the_same_time_one_is_the_newest(nats: NatsSpec) -> None:
    taken: list[tuple[KvOffsets, Claim]] = []
    with connect(nats):
        at_once = threading.Barrier(6)

        def take() -> None:
            offsets = KvOffsets(nats)
            at_once.wait()
            taken.append((offsets, offsets.claim(SHARE)))

        threads = [Background(take) for _ in range(6)]
        for thread in threads:
            thread.result()
        epochs = [claim.epoch for _, claim in taken]
        assert len(set(epochs)) == 6
        for offsets, claim in taken:
            if claim.epoch == max(epochs):
                offsets.store(claim, 3)
            else:
                with pytest.raises(FencedError):
                    offsets.store(claim, 8)
        assert claimed(nats).offsets == {ITEMS: 3, ORDERS: 3}


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_in_full_flow_is_fenced_where_the_claim_reads_it(
    nats: NatsSpec, seed: int
) -> None:
    last = 0
    with connect(nats):
        offsets = KvOffsets(nats)
        old = offsets.claim(SHARE)

        def write() -> None:
            nonlocal last
            for upto in range(1, 100_000):
                offsets.store(old, upto)
                last = upto

        zombie = Background(write)
        until(lambda: last > random.Random(seed).randint(1, 60))
        new = claimed(nats)
        with pytest.raises(FencedError):
            zombie.result()
        assert new.offsets == {ITEMS: last, ORDERS: last}


def test_widened_and_narrowed_topics_repeat_and_skip_nothing(nats: NatsSpec) -> None:
    offsets = KvOffsets(nats)
    offsets.store(offsets.claim(replace(SHARE, subjects=(ITEMS,))), 5)
    wide = offsets.claim(replace(SHARE, subjects=(ALL,)))
    assert wide.offsets == {ALL: 0, ITEMS: 5}
    offsets.store(wide, 9)
    assert claimed(nats, ALL).offsets == {ALL: 9}
    assert claimed(nats, ITEMS, ORDERS).offsets == {ITEMS: 9, ORDERS: 9}


def test_a_subject_that_is_new_begins_where_the_share_says(nats: NatsSpec) -> None:
    assert claimed(nats, ITEMS, begin=7).offsets == {ITEMS: 7}
    assert claimed(nats, ITEMS, ORDERS, begin=30).offsets == {ITEMS: 7, ORDERS: 30}
    assert claimed(nats, ITEMS, ORDERS, begin=50).offsets == {ITEMS: 7, ORDERS: 30}
    # what the narrower ones have not got yet counts more than where a wider one would begin
    assert claimed(nats, ALL, begin=60).offsets == {ALL: 7, ORDERS: 30}


def test_a_stream_made_again_starts_anew_and_is_named_once(nats: NatsSpec) -> None:
    offsets = KvOffsets(nats)
    offsets.store(offsets.claim(SHARE), 40)
    reborn = replace(SHARE, created="2026-02-02T00:00:00Z", begin=9)
    claim = offsets.claim(reborn)
    assert claim.offsets == {ITEMS: 0, ORDERS: 0}
    assert f"{ITEMS}: 40 of stream CDC_shop created {SHARE.created}" in claim.forgotten
    again = offsets.claim(reborn)
    assert (again.offsets, again.forgotten) == ({ITEMS: 0, ORDERS: 0}, "")
    offsets.store(again, 3)
    assert KvOffsets(nats).claim(reborn).offsets == {ITEMS: 3, ORDERS: 3}


def test_an_accepted_truncation_takes_the_offset_back(nats: NatsSpec) -> None:
    offsets = KvOffsets(nats)
    offsets.store(offsets.claim(SHARE), 20)
    cut = claimed(nats, end=11)
    assert cut.offsets == {ITEMS: 11, ORDERS: 11}
    KvOffsets(nats).store(cut, 12)
    assert claimed(nats).offsets == {ITEMS: 12, ORDERS: 12}


def test_sinks_and_streams_stand_apart(nats: NatsSpec) -> None:
    offsets = KvOffsets(nats)
    offsets.store(offsets.claim(SHARE), 5)
    for other in (replace(SHARE, sink="hook2"), replace(SHARE, stream="CDC_shop2")):
        claim = offsets.claim(other)
        assert claim.offsets == {ITEMS: 0, ORDERS: 0}
        offsets.store(claim, 8)
    assert claimed(nats).offsets == {ITEMS: 5, ORDERS: 5}


def test_the_bucket_keeps_one_message_a_share(nats: NatsSpec, connection: Connection) -> None:
    offsets = KvOffsets(nats)
    claim = offsets.claim(SHARE)
    for upto in range(1, 30):
        offsets.store(claim, upto)
    info = api.stream_info(connection, f"KV_{BUCKET}")
    assert info is not None
    assert info.state.messages == 1
    assert info.config["max_msgs_per_subject"] == 1


def test_a_deleted_key_starts_anew_and_old_writers_stay_fenced(
    nats: NatsSpec, connection: Connection
) -> None:
    offsets = KvOffsets(nats)
    old = offsets.claim(SHARE)
    offsets.store(old, 5)
    # as `nats kv del` does
    connection.request(KEY, b"", headers="KV-Operation: DEL\r\n")
    new = claimed(nats)
    assert new.offsets == {ITEMS: 0, ORDERS: 0}
    assert new.epoch > old.epoch
    with pytest.raises(FencedError):
        offsets.store(old, 6)


def test_what_cannot_be_read_stops_with_its_cure(nats: NatsSpec, connection: Connection) -> None:
    claimed(nats)
    connection.request(KEY, b'{"epoch": "seven"}')
    with pytest.raises(GapError) as caught:
        claimed(nats)
    assert caught.value.where == KEY
    assert f"nats kv del {BUCKET} hook.CDC_shop" in caught.value.cure


def test_a_killed_server_is_retryable_and_loses_nothing(
    mortal_nats: NatsServer, nats: NatsSpec, connection: Connection
) -> None:
    offsets = KvOffsets(nats)
    claim = offsets.claim(SHARE)
    offsets.store(claim, 5)
    mortal_nats.kill()
    until(lambda: not connection.connected)
    with pytest.raises(RetryableError):
        offsets.store(claim, 6)
    with pytest.raises(RetryableError):
        offsets.claim(SHARE)
    mortal_nats.start()
    until(lambda: connection.connected)

    def stored() -> bool:
        try:
            offsets.store(claim, 7)
        except RetryableError:
            return False
        return True

    until(stored)
    assert claimed(nats).offsets == {ITEMS: 7, ORDERS: 7}


def test_a_bucket_that_is_deleted_meanwhile_is_no_silent_loss(
    nats: NatsSpec, connection: Connection
) -> None:
    offsets = KvOffsets(nats)
    claim = offsets.claim(SHARE)
    offsets.store(claim, 5)
    api.call(connection, f"STREAM.DELETE.KV_{BUCKET}", None, dict)
    errors: list[str] = []

    def told() -> bool:
        try:
            offsets.store(claim, 6)
        except RetryableError:
            return False
        except ConfigError as error:
            errors.append(error.where)
            return True
        return False

    until(told)
    assert errors == [BUCKET]


def test_the_documented_permissions_are_enough(nats_factory: NatsFactory) -> None:
    server = nats_factory(
        config=f"""
        authorization {{ users: [
          {{user: deliver, password: d, permissions: {{ {PERMISSIONS}
             subscribe: ["_INBOX_deliver.>"] }} }}
        ] }}
        """
    )
    tree = {
        "url": server.url, "user": "deliver", "password": "d", "inbox_prefix": "_INBOX_deliver",
    }  # fmt: skip
    nats = NatsSpec.model_validate(tree)
    offsets = KvOffsets(nats)
    offsets.store(offsets.claim(SHARE), 4)
    assert claimed(nats).offsets == {ITEMS: 4, ORDERS: 4}


def test_an_entry_is_readable_by_people(nats: NatsSpec, connection: Connection) -> None:
    offsets = KvOffsets(nats)
    claim = offsets.claim(replace(SHARE, subjects=(ITEMS,)))
    offsets.store(claim, 4)
    stored = api.last_message(connection, f"KV_{BUCKET}", KEY)
    assert stored is not None
    assert msgspec.json.decode(stored.data) == {
        "epoch": claim.epoch,
        "subjects": {ITEMS: {"created": SHARE.created, "upto": 4}},
    }
