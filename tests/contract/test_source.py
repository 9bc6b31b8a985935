"""The suite that every source must pass."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES
from connectors.contracts.source import Checkpoint, Chunk, Observable
from connectors.errors import ConfigError, GapError, RetryableError

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import SourceReader
    from tests.contract.source_adapter import SourceAdapter

pytestmark = pytest.mark.servers

PATIENCE = 60.0


def read_changes(reader: SourceReader, count: int) -> list[Chunk]:
    """Read until `count` changes have come."""
    chunks: list[Chunk] = []
    seen = 0
    deadline = time.monotonic() + PATIENCE
    while seen < count:
        assert time.monotonic() < deadline, f"{seen} of {count} changes in {PATIENCE} s"
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
            seen += len(chunk.changes)
    return chunks


def changes_of(chunks: list[Chunk]) -> list[Change]:
    return [change for chunk in chunks for change in chunk.changes]


def ids_of(adapter: SourceAdapter, chunks: list[Chunk]) -> list[int]:
    return [adapter.identify(change) for change in changes_of(chunks)]


@pytest.fixture
def begun(source_adapter: SourceAdapter) -> Checkpoint:
    """Where the source stands when it has been set up and nothing has been written yet."""
    with closing(source_adapter.source().open(None)) as reader:
        source_adapter.write([0])
        chunk = read_changes(reader, 1)[-1]
        assert ids_of(source_adapter, [chunk]) == [0]
        return chunk.checkpoint


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


def test_resuming_behind_any_chunk_repeats_nothing_and_misses_nothing(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    total = 0
    for size in [1, 5, 1100, 2, 900, 900, 1]:
        source_adapter.write(list(range(total + 1, total + size + 1)))
        total += size
    with closing(source_adapter.source().open(begun)) as reader:
        chunks = read_changes(reader, total)
    done = 0
    for chunk in chunks:
        done += len(chunk.changes)
        source_adapter.write([total + 1])
        total += 1
        with closing(source_adapter.source().open(chunk.checkpoint)) as reader:
            rest = read_changes(reader, total - done)
        assert ids_of(source_adapter, rest) == list(range(done + 1, total + 1))


def test_resuming_in_the_middle_of_a_transaction_repeats_nothing_and_misses_nothing(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    source_adapter.write([1])
    source_adapter.write(list(range(2, 2602)))
    source_adapter.write([2602])
    with closing(source_adapter.source().open(begun)) as reader:
        chunks = read_changes(reader, 2602)
    changes = changes_of(chunks)
    resume = {change.position: chunk.resume for chunk in chunks for change in chunk.changes}
    for cut in [1, 2, 500, 999, 1000, 1001, 2000, 2600, 2601]:
        position = changes[cut - 1].position
        checkpoint = Checkpoint(position=position, state=resume[position])
        with closing(source_adapter.source().open(checkpoint)) as reader:
            rest = read_changes(reader, 2602 - cut)
        assert ids_of(source_adapter, rest) == list(range(cut + 1, 2603))
        assert [c.position for c in changes_of(rest)] == [c.position for c in changes[cut:]]


@pytest.mark.parametrize("seed", range(3))
def test_restarts_at_any_point_add_up_to_the_log(
    source_adapter: SourceAdapter, begun: Checkpoint, seed: int
) -> None:
    random_ = random.Random(seed)
    total = 0
    for _ in range(25):
        size = random_.choice([1, 1, 2, 20, 400, 1300])
        source_adapter.write(list(range(total + 1, total + size + 1)))
        total += size
    got: list[int] = []
    checkpoint = confirmed = begun
    deadline = time.monotonic() + PATIENCE
    while len(got) < total:
        assert time.monotonic() < deadline
        with closing(source_adapter.source().open(checkpoint)) as reader:
            for _ in range(random_.randint(1, 4)):
                if (chunk := reader.read()) is None:
                    continue
                cut = random_.randint(0, len(chunk.changes))
                if chunk.changes and cut < len(chunk.changes):
                    # the stream holds a prefix of the chunk only: resume inside it
                    kept = chunk.changes[:cut]
                    got += [source_adapter.identify(change) for change in kept]
                    if kept:
                        checkpoint = Checkpoint(kept[-1].position, chunk.resume)
                    break
                got += [source_adapter.identify(change) for change in chunk.changes]
                checkpoint = chunk.checkpoint
                if random_.random() < 0.3:
                    reader.confirm(confirmed)
                confirmed = checkpoint
    assert got == list(range(1, total + 1))


def test_a_checkpoint_survives_being_stored_as_json(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    source_adapter.write([1, 2])
    stored = msgspec.json.decode(msgspec.json.encode(begun), type=Checkpoint)
    with closing(source_adapter.source().open(stored)) as reader:
        assert ids_of(source_adapter, read_changes(reader, 2)) == [1, 2]


@pytest.mark.log_is_held
def test_only_confirm_lets_the_server_drop_its_log(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    # what it resumes from is stored already, and may be confirmed by the mere start
    source_adapter.source().open(begun).close()
    before = source_adapter.retained()
    with closing(source_adapter.source().open(begun)) as reader:
        for number in range(1, 6):
            source_adapter.write([number])
        chunks = read_changes(reader, 5)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            reader.read()
        assert source_adapter.retained() == before
    with closing(source_adapter.source().open(begun)) as reader:
        chunks = read_changes(reader, 5)
        assert source_adapter.retained() == before
        reader.confirm(chunks[-1].checkpoint)
        deadline = time.monotonic() + PATIENCE
        while source_adapter.retained() <= before:
            assert time.monotonic() < deadline, "confirm did not reach the server"
            reader.read()
    source_adapter.write([6])
    with closing(source_adapter.source().open(chunks[-1].checkpoint)) as reader:
        assert ids_of(source_adapter, read_changes(reader, 1)) == [6]


@pytest.mark.log_is_held
def test_what_is_not_confirmed_stays_available(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    for number in range(1, 9):
        source_adapter.write([number])
    source_adapter.write(list(range(9, 9 + CHUNK_CHANGES)))
    total = 8 + CHUNK_CHANGES
    source_adapter.source().open(begun).close()
    before = source_adapter.retained()
    with closing(source_adapter.source().open(begun)) as reader:
        chunks = read_changes(reader, total)
        assert len(chunks) > 1
        first = chunks[0]
        reader.confirm(first.checkpoint)
        deadline = time.monotonic() + PATIENCE
        while source_adapter.retained() <= before:
            assert time.monotonic() < deadline, "confirm did not reach the server"
            reader.read()
    done = len(first.changes)
    with closing(source_adapter.source().open(first.checkpoint)) as reader:
        rest = ids_of(source_adapter, read_changes(reader, total - done))
    assert rest == list(range(done + 1, total + 1))


def test_a_killed_server_is_waited_for_and_nothing_is_lost_or_repeated(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    with closing(source_adapter.source().open(begun)) as reader:
        source_adapter.write([1, 2])
        chunks = read_changes(reader, 2)
        for round_ in range(2):
            first = 3 + 1202 * round_
            source_adapter.write(list(range(first, first + 1200)))
            chunks += read_changes(reader, 1) if round_ else []
            source_adapter.kill_server()
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                began = time.monotonic()
                if (chunk := reader.read()) is not None:
                    chunks.append(chunk)
                assert time.monotonic() - began < 5.0, "read() must not block while it is down"
            source_adapter.start_server()
            source_adapter.write([first + 1200, first + 1201])
            have = len(changes_of(chunks))
            chunks += read_changes(reader, first + 1201 - have)
    assert ids_of(source_adapter, chunks) == list(range(1, 2407))
    positions = [change.position for change in changes_of(chunks)]
    assert all(earlier < later for earlier, later in pairwise(positions))


def test_an_idle_source_does_not_block_its_reader(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    with closing(source_adapter.source().open(begun)) as reader:
        for _ in range(20):
            began = time.monotonic()
            chunk = reader.read()
            assert chunk is None or not chunk.changes
            assert time.monotonic() - began < 0.5


def test_a_new_owner_takes_over_from_a_session_that_still_hangs(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    with closing(source_adapter.source().open(begun)) as hanging:
        source_adapter.write([1])
        assert ids_of(source_adapter, read_changes(hanging, 1)) == [1]
        source_adapter.write([2])
        with closing(source_adapter.source().open(begun)) as successor:
            assert ids_of(source_adapter, read_changes(successor, 2)) == [1, 2]


def test_many_sources_can_be_opened_and_closed_without_leaving_sessions(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    threads = threading.active_count()
    for _ in range(10):
        source_adapter.source().open(begun).close()
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > threads:
        assert time.monotonic() < deadline, "threads stay behind"
    source_adapter.write([1])
    with closing(source_adapter.source().open(begun)) as reader:
        assert ids_of(source_adapter, read_changes(reader, 1)) == [1]


def test_closing_twice_and_closing_while_the_server_is_down_is_harmless(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    reader = source_adapter.source().open(begun)
    source_adapter.kill_server()
    try:
        reader.close()
        reader.close()
    finally:
        source_adapter.start_server()


def test_a_server_that_does_not_answer_is_a_retryable_error(
    source_adapter: SourceAdapter,
) -> None:
    with pytest.raises(RetryableError) as caught:
        source_adapter.unreachable().open(None)
    assert "s3cret-word" not in str(caught.value)
    assert "." in caught.value.code


def test_each_missing_setup_is_one_config_error_with_its_cure(
    source_adapter: SourceAdapter,
) -> None:
    cases = source_adapter.misconfigured()
    assert cases
    for word, make in cases.items():
        with pytest.raises(ConfigError) as caught:
            make().open(None)
        assert word in str(caught.value)
        assert caught.value.cure


def test_lost_history_is_a_gap_and_never_papered_over(
    source_adapter: SourceAdapter, begun: Checkpoint, loss: str
) -> None:
    source_adapter.write([1])
    source_adapter.lose_history(loss)
    with pytest.raises(GapError) as caught:
        source_adapter.source().open(begun)
    assert caught.value.cure


def test_a_check_finds_nothing_where_a_source_can_start_and_disturbs_none_that_runs(
    source_adapter: SourceAdapter,
) -> None:
    assert source_adapter.source().check() == []
    # Nothing was left behind that would be told from a first start.
    assert source_adapter.source().drop() == []
    with closing(source_adapter.source().open(None)) as reader:
        assert source_adapter.source().check() == []
        source_adapter.write([1, 2])
        assert ids_of(source_adapter, read_changes(reader, 2)) == [1, 2]


def test_a_check_tells_what_a_start_would_fail_with(source_adapter: SourceAdapter) -> None:
    (away,) = source_adapter.unreachable().check()
    assert isinstance(away, RetryableError)
    assert "s3cret-word" not in str(away)
    for word, make in source_adapter.misconfigured().items():
        try:
            found = make().check()
        except ConfigError as error:  # wrong by itself, without a look at the server
            found = [error]
        assert any(word in str(error) for error in found)
        assert all(isinstance(error, ConfigError) and error.cure for error in found)


def test_a_source_that_can_be_observed_tells_where_its_server_is(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    source = source_adapter.source()
    if not isinstance(source, Observable):
        pytest.skip("it cannot be observed")
    before = source.observe(begun)
    source_adapter.write([1, 2, 3])
    after = source.observe(begun)
    assert before.position != after.position
    if after.slot:
        assert after.lag is not None
        assert after.lag > (before.lag or 0)
        assert after.retained >= after.lag
    # Nothing was disturbed, and nothing confirmed.
    with closing(source_adapter.source().open(begun)) as reader:
        held = source.observe(begun)
        assert held.slot_active == bool(held.slot)
        assert ids_of(source_adapter, read_changes(reader, 3)) == [1, 2, 3]
    assert source.observe(None).position
    with pytest.raises(RetryableError):
        source_adapter.unreachable().observe(None)  # type: ignore[attr-defined]
