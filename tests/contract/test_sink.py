"""The suite that every sink must pass: what is written, and with which offset."""

from __future__ import annotations

import random
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.sink import Batch, Share
from tests.contract.sink_log import (
    SHARE,
    SUBJECTS,
    batches,
    change,
    deliver,
    expect_stored,
    history,
    model,
    pending,
)

if TYPE_CHECKING:
    from tests.contract.sink_adapter import SinkAdapter

pytestmark = pytest.mark.servers


def test_what_is_written_is_there_with_its_offset(sink_adapter: SinkAdapter) -> None:
    log = history(1, 400)
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log)
    assert sink_adapter.rows() == model(log)
    offsets = sink_adapter.sink().claim(SHARE).offsets
    assert set(offsets) == set(SUBJECTS)
    for subject in SUBJECTS:
        last = max(item.sequence for item in log if item.subject == subject)
        assert last <= offsets[subject] <= log[-1].sequence


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_changes_of_a_key_apply_in_order_within_and_across_batches(
    sink_adapter: SinkAdapter, size: int
) -> None:
    log = history(2, 300, keys=3)
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log, size)
    assert sink_adapter.rows() == model(log)


def test_a_row_deleted_and_created_again_in_one_batch_stays(sink_adapter: SinkAdapter) -> None:
    log = [
        change(1, "c", 1, "old"),
        change(2, "d", 1),
        change(3, "c", 1, "new"),
        change(4, "c", 2, "gone"),
        change(5, "d", 2),
        change(6, "d", 3),
    ]
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log)
    assert sink_adapter.rows() == {1: "new"}


def test_a_truncate_removes_what_came_before_it_only(sink_adapter: SinkAdapter) -> None:
    empty = change(3, "t", 0)._replace(
        key=None,
        envelope=msgspec.json.encode(
            {
                "before": None,
                "after": None,
                "source": {"name": "shop", "schema": "public", "table": "items"},
                "op": "t",
                "ts_ms": 1_700_000_000_003,
                "transaction": {"id": "3"},
            }
        ),
    )
    log = [change(1, "c", 2, "a"), change(2, "c", 4, "b"), empty, change(4, "c", 4, "c")]
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log)
    assert sink_adapter.rows() == {4: "c"}


def test_an_empty_batch_moves_the_offset(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, [], 77))
        writer.flush()
    assert sink_adapter.sink().claim(SHARE).offsets == dict.fromkeys(SUBJECTS, 77)


def test_an_offset_never_goes_back(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, [change(9, "c", 1, "x"), change(10, "c", 2, "x")], 20))
        writer.write(Batch(claim, [], 20))
        writer.flush()
    again = sink_adapter.sink().claim(SHARE)
    assert again.offsets == dict.fromkeys(SUBJECTS, 20)


@pytest.mark.parametrize("seed", range(4))
def test_restarts_at_any_point_add_up_to_the_log(sink_adapter: SinkAdapter, seed: int) -> None:
    random_ = random.Random(seed)
    # an offset that is stored behind the rows lags when a writer is cut off: it takes more restarts
    log = history(seed + 100, 1500 if sink_adapter.transactional else 1000)
    restarts = 0
    deadline = time.monotonic() + 200
    while True:
        assert time.monotonic() < deadline
        claim = sink_adapter.sink().claim(SHARE)
        expect_stored(sink_adapter, log, claim.offsets)
        if not (rest := pending(log, claim.offsets)):
            break
        with closing(sink_adapter.sink().open(claim)) as writer:
            todo = batches(claim, rest, random_.choice([1, 10, 60]))
            for batch in todo[: random_.randint(1, 12)]:
                writer.write(batch)
                if random_.random() < 0.1:
                    writer.flush()
        restarts += 1
    # a round writes 720 changes at most
    assert restarts > (3 if sink_adapter.transactional else 1)
    assert sink_adapter.rows() == model(log)


def test_a_batch_that_was_interrupted_can_be_written_again(sink_adapter: SinkAdapter) -> None:
    log = history(5, 120)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, log[:60], log[59].sequence))
    again = sink_adapter.sink().claim(SHARE)
    deliver(sink_adapter, again, pending(log, again.offsets))
    assert sink_adapter.rows() == model(log)


def test_stored_follows_what_is_written(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        assert writer.stored == 0
        seen = [0]
        for batch in batches(claim, history(10, 200), 10):
            writer.write(batch)
            seen.append(writer.stored)
            assert writer.stored <= batch.upto
        writer.flush()
        assert writer.stored == batch.upto
        writer.write(Batch(claim, [], batch.upto + 5))
        writer.flush()
        assert writer.stored == batch.upto + 5
    assert seen == sorted(seen)
    assert writer.stored == batch.upto + 5


def test_a_batch_of_which_a_part_is_stored_is_completed(sink_adapter: SinkAdapter) -> None:
    share = msgspec.structs.replace(SHARE, subjects=("CDC.shop.db.items.*",))
    deliver(sink_adapter, sink_adapter.sink().claim(share), [change(5, "c", 2, "a")])
    again = sink_adapter.sink().claim(share)
    deliver(sink_adapter, again, [change(5, "u", 2, "old"), change(6, "c", 1, "b")])
    assert sink_adapter.rows() == {1: "b", 2: "a"}


def test_streams_are_claimed_apart(sink_adapter: SinkAdapter) -> None:
    other = Share("warehouse", "CDC_other", SHARE.created, ("CDC.other.db.items.0",))
    here, there = sink_adapter.sink().claim(SHARE), sink_adapter.sink().claim(other)
    foreign = change(8, "c", 1000, "there")._replace(subject=other.subjects[0])
    deliver(sink_adapter, there, [foreign])
    deliver(sink_adapter, here, [change(3, "c", 1, "here")])
    assert sink_adapter.rows() == {1: "here", 1000: "there"}
    assert sink_adapter.sink().claim(other).offsets == {other.subjects[0]: 8}


def test_sinks_of_one_target_are_claimed_apart(sink_adapter: SinkAdapter) -> None:
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), [change(3, "c", 1, "here")])
    other = msgspec.structs.replace(SHARE, sink="archive")
    assert sink_adapter.sink().claim(other).offsets == dict.fromkeys(SUBJECTS, 0)
