"""The suite that every source must pass: going on where a reader ended, and confirming."""

from __future__ import annotations

import random
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.changes import CHUNK_CHANGES
from connectors.contracts.source import Checkpoint
from tests.contract.source_reading import PATIENCE, changes_of, ids_of, read_changes

if TYPE_CHECKING:
    from tests.contract.source_adapter import SourceAdapter

pytestmark = pytest.mark.servers


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
        assert time.monotonic() < deadline, f"nothing came for {PATIENCE} s"
        with closing(source_adapter.source().open(checkpoint)) as reader:
            for _ in range(random_.randint(1, 4)):
                if (chunk := reader.read()) is None:
                    continue
                # On a busy machine all of the restarts may take longer than that.
                deadline = time.monotonic() + PATIENCE
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
