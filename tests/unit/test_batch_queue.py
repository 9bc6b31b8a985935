"""Batches that wait for the thread that writes them."""

from __future__ import annotations

import pytest

from connectors.batch_queue import QUEUE_BATCHES, QUEUE_BYTES, QUEUE_CHANGES, BatchQueue
from connectors.contracts.sink import Batch, Claim, Share
from tests.unit.changes import change, delivered

CLAIM = Claim(Share("warehouse", "CDC_shop", "now", ("CDC.shop.>",)), 1, {"CDC.shop.>": 0})
CHANGE = delivered(change())


def batch(upto: int, count: int = 0, complete: int = 0) -> Batch:
    return Batch(CLAIM, [CHANGE] * count, upto, complete)


def test_batches_come_out_in_their_order() -> None:
    queue = BatchQueue()
    first, second = batch(1, 1), batch(3, 2)
    queue.put(first)
    queue.put(second)
    assert queue
    assert queue.changes == 3
    assert queue.take() == [first, second]
    assert not queue
    assert queue.changes == 0
    assert queue.take() == []


def test_an_offset_goes_with_what_waits_before_it() -> None:
    queue = BatchQueue()
    queue.put(batch(1, 1))
    queue.put(batch(7, complete=6))
    assert queue.take() == [Batch(CLAIM, [CHANGE], 7, 6)]
    queue.put(batch(8))
    queue.put(batch(9))
    queue.put(batch(10, 1))
    assert queue.take() == [batch(9), batch(10, 1)]


@pytest.mark.parametrize("limit", ["changes", "bytes", "batches"])
def test_what_waits_is_bounded(limit: str) -> None:
    queue = BatchQueue()
    big = CHANGE._replace(envelope=b" " * (QUEUE_BYTES // 4))
    one, most = {
        "changes": (batch(1, 1000), QUEUE_CHANGES // 1000),
        "bytes": (Batch(CLAIM, [big], 1), 4),
        "batches": (batch(1, 1), QUEUE_BATCHES),
    }[limit]
    for _ in range(most):
        assert queue.room
        queue.put(one)
    assert not queue.room
    queue.take()
    assert queue.room
