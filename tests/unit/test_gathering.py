"""Batches of the size that a sink wants."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import Delivered
from connectors.contracts.sink import Batch, Claim, Share
from dataflows.configuration.options import BatchSpec
from dataflows.gathering import Gathering

CLAIM = Claim(Share("warehouse", "CDC_shop", "", ("CDC.shop.>",)), 1, {"CDC.shop.>": 0})


def change(sequence: int, *, last: bool = True) -> Delivered:
    return Delivered(sequence, "CDC.shop.db.a.0", "", None, None, "7", last, b"{}")


def batch(first: int, count: int, upto: int, complete: int = 0) -> Batch:
    return Batch(CLAIM, [change(first + i) for i in range(count)], upto, complete)


def test_a_batch_that_fits_goes_on_as_it_is() -> None:
    gathering = Gathering(BatchSpec())
    assert gathering.take() is None
    gathering.add(batch(1, 3, 9, 9))
    taken = gathering.take()
    assert taken is not None
    assert ([c.sequence for c in taken.changes], taken.upto, taken.complete) == ([1, 2, 3], 9, 9)
    assert gathering.take() is None


def test_an_offset_alone_does_not_wait() -> None:
    gathering = Gathering(BatchSpec(time=timedelta(seconds=60)))
    gathering.add(batch(1, 0, 5))
    taken = gathering.take()
    assert taken is not None
    assert taken.upto == 5


def test_a_batch_waits_until_it_is_full() -> None:
    gathering = Gathering(BatchSpec(size=4, time=timedelta(seconds=60)))
    gathering.add(batch(1, 3, 3))
    assert gathering.take() is None
    gathering.add(batch(4, 2, 5))
    taken = gathering.take()
    assert taken is not None
    assert (len(taken.changes), taken.upto) == (4, 4)
    assert gathering.take() is None


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=12), st.integers(1, 9))
def test_everything_comes_out_once_in_order(reads: list[tuple[int, int]], size: int) -> None:
    gathering = Gathering(BatchSpec(size=size))
    sequence, came = 0, []
    upto = 0
    for count, gap in reads:
        first = sequence + 1
        sequence += count + gap
        if sequence == first - 1:
            continue
        gathering.add(batch(first, count, sequence, sequence))
        while taken := gathering.take():
            assert len(taken.changes) <= size
            assert upto < taken.upto
            assert taken.complete <= taken.upto
            assert all(upto < change.sequence <= taken.upto for change in taken.changes)
            upto = taken.upto
            came += [change.sequence for change in taken.changes]
        assert upto == sequence
    assert came == sorted(set(came))


def test_a_cut_inside_a_transaction_is_not_its_end() -> None:
    gathering = Gathering(BatchSpec(size=2))
    changes = [change(1), change(2, last=False), change(3, last=False), change(4)]
    gathering.add(Batch(CLAIM, changes, 4, 4))
    first, second = gathering.take(), gathering.take()
    assert first is not None
    assert second is not None
    assert (first.upto, first.complete) == (2, 1)
    assert (second.upto, second.complete) == (4, 4)
