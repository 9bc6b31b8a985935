"""The suite that every source must pass: which changes come, in which order, in which chunks."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES
from connectors.contracts.source import Checkpoint
from tests.contract.source_reading import changes_of, ids_of, read_changes

if TYPE_CHECKING:
    from tests.contract.source_adapter import SourceAdapter

pytestmark = pytest.mark.servers


def test_changes_arrive_in_commit_order_with_rising_positions_of_one_width(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    sizes = [1, 3, 1, 250, 1, 700, 2]
    total = sum(sizes)
    written = iter(range(1, total + 1))
    for size in sizes:
        source_adapter.write([next(written) for _ in range(size)])
    with closing(source_adapter.source().open(begun)) as reader:
        chunks = read_changes(reader, total)
    assert ids_of(source_adapter, chunks) == list(range(1, total + 1))
    positions = [begun.position] + [change.position for change in changes_of(chunks)]
    assert all(earlier < later for earlier, later in pairwise(positions))
    assert len({len(position) for position in positions}) == 1


def test_each_change_carries_its_table_its_key_and_a_debezium_envelope(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    source_adapter.write([41, 42])
    with closing(source_adapter.source().open(begun)) as reader:
        changes = changes_of(read_changes(reader, 2))
    for change, number in zip(changes, [41, 42], strict=True):
        assert change.op == "c"
        assert change.table is not None
        assert change.table.key == ("id",)
        assert change.key is not None
        assert change.key.isascii()
        assert msgspec.json.decode(change.key) == {"id": number}
        envelope = msgspec.json.decode(change.envelope)
        assert envelope["op"] == "c"
        assert envelope["before"] is None
        assert envelope["after"]["id"] == number
        assert isinstance(envelope["ts_ms"], int)
        assert {"source", "transaction"} <= envelope.keys()
        assert set(envelope["after"]) == {column.name for column in change.table.columns}


def test_the_last_change_of_a_transaction_is_marked_once(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    ends, next_id = [], 1
    for size in [1, 2, 1500, 1, 999]:
        source_adapter.write(list(range(next_id, next_id + size)))
        next_id += size
        ends.append(next_id - 1)
    with closing(source_adapter.source().open(begun)) as reader:
        changes = changes_of(read_changes(reader, next_id - 1))
    assert [source_adapter.identify(change) for change in changes if change.last] == ends
    assert all(change.transaction for change in changes)
    for earlier, later in pairwise(changes):
        assert (earlier.transaction == later.transaction) is not earlier.last


def test_what_was_rolled_back_never_appears(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    source_adapter.write([1])
    source_adapter.abort([2, 3])
    source_adapter.partly([4, 5], [6, 7])
    source_adapter.partly([8], [9])
    source_adapter.write([10])
    with closing(source_adapter.source().open(begun)) as reader:
        changes = changes_of(read_changes(reader, 5))
    assert [source_adapter.identify(change) for change in changes] == [1, 4, 5, 8, 10]
    assert [source_adapter.identify(c) for c in changes if c.last] == [1, 5, 8, 10]


def test_a_chunk_keeps_its_limits_and_cuts_only_transactions_that_are_too_large(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    next_id = 1
    for size in [600, 600, CHUNK_CHANGES, 2 * CHUNK_CHANGES + 500, 10, 990]:
        source_adapter.write(list(range(next_id, next_id + size)))
        next_id += size
    with closing(source_adapter.source().open(begun)) as reader:
        chunks = [chunk for chunk in read_changes(reader, next_id - 1) if chunk.changes]
    sizes: dict[str, int] = {}
    spread: dict[str, int] = {}
    for chunk in chunks:
        assert len(chunk.changes) <= CHUNK_CHANGES
        for transaction in {change.transaction for change in chunk.changes}:
            spread[transaction] = spread.get(transaction, 0) + 1
        for change in chunk.changes:
            sizes[change.transaction] = sizes.get(change.transaction, 0) + 1
    small = [transaction for transaction, size in sizes.items() if size <= CHUNK_CHANGES]
    assert len(small) == 5
    assert {spread[transaction] for transaction in small} == {1}


def test_a_chunk_of_wide_rows_stays_small_in_bytes(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    size, count = CHUNK_BYTES // 16, 40
    source_adapter.write_wide(range(1, count + 1), size)
    with closing(source_adapter.source().open(begun)) as reader:
        chunks = read_changes(reader, count)
    assert ids_of(source_adapter, chunks) == list(range(1, count + 1))
    for chunk in chunks:
        held = sum(len(change.envelope) for change in chunk.changes)
        assert held <= CHUNK_BYTES + 2 * size


def test_an_idle_source_does_not_block_its_reader(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    with closing(source_adapter.source().open(begun)) as reader:
        for _ in range(20):
            began = time.monotonic()
            chunk = reader.read()
            assert chunk is None or not chunk.changes
            assert time.monotonic() - began < 0.5
