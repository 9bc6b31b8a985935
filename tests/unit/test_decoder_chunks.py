"""How transactions become chunks, and what their checkpoints say."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.contracts.source import Checkpoint, Chunk
from connectors.postgres.pgoutput.decoder import Decoder
from connectors.postgres.pgoutput.lsn import format_lsn, parse_lsn
from tests.unit import wal
from tests.unit.wal import FakeCatalog

OID = 16385
SHAPE = wal.xlog(0, wal.relation(OID, "t", [("id", 23, True), ("v", 25, False)]))
SYSTEM = "42"


def make(resume: Checkpoint | None = None) -> Decoder:
    return Decoder("shop", "db", FakeCatalog(), resume=resume, system=SYSTEM)


def state(lsn: int) -> dict[str, str]:
    return {"lsn": format_lsn(lsn), "system": SYSTEM}


def transaction(number: int, size: int, value: str = "x") -> list[bytes]:
    """Commits at number*0x100000, ends 0x30 behind."""
    lsn = number * 0x100000
    return [
        wal.xlog(lsn, wal.begin(lsn, number)),
        *(wal.xlog(lsn - 1, wal.insert(OID, [str(row), value])) for row in range(size)),
        wal.xlog(lsn, wal.commit(lsn, lsn + 0x30)),
    ]


def drain(decoder: Decoder, *, idle: bool = True) -> list[Chunk]:
    chunks = []
    while chunk := decoder.chunk(idle=idle):
        chunks.append(chunk)
    return chunks


def sizes(chunks: list[Chunk]) -> list[int]:
    return [len(chunk.changes) for chunk in chunks]


def test_whole_transactions_are_gathered() -> None:
    decoder = make()
    decoder.feed([SHAPE, *transaction(1, 400), *transaction(2, 500)])
    assert drain(decoder, idle=False) == []
    assert decoder.pending == 900
    decoder.feed(transaction(3, 200))
    (chunk,) = drain(decoder, idle=False)
    assert len(chunk.changes) == 900
    assert chunk.checkpoint == Checkpoint("0000000000200000-000001F3", state(0x200030))
    assert chunk.resume == state(0)
    (rest,) = drain(decoder)
    assert len(rest.changes) == 200
    assert rest.resume == state(0x200030)
    assert rest.checkpoint.state == state(0x300030)
    assert decoder.pending == 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1000, [1000]),
        (1001, [1000, 1]),
        (2000, [1000, 1000]),
        (2500, [1000, 1000, 500]),
    ],
)
def test_only_a_transaction_that_is_too_large_is_cut(size: int, expected: list[int]) -> None:
    decoder = make()
    decoder.feed([SHAPE, *transaction(1, 3), *transaction(2, size), *transaction(3, 1000)])
    chunks = drain(decoder)
    assert sizes(chunks) == [3, *expected, 1000]
    last = [place for place, change in enumerate(changes_of(chunks)) if change.last]
    assert last == [2, 2 + size, 2 + size + 1000]
    assert chunks[-2].checkpoint.state == state(0x200030)
    for before, cut in pairwise(chunks[:-2]):
        # Inside the transaction the log is read again from its start.
        assert cut.checkpoint.state == cut.resume == before.checkpoint.state == state(0x100030)
        assert cut.checkpoint.position == cut.changes[-1].position


def changes_of(chunks: list[Chunk]) -> list[Change]:
    return [change for chunk in chunks for change in chunk.changes]


def test_the_last_change_is_held_back_until_the_commit() -> None:
    decoder = make()
    *open_frames, commit = transaction(1, 1001)
    decoder.feed([SHAPE, *open_frames])
    assert sizes(drain(decoder)) == [1000]
    assert decoder.pending == 1
    assert decoder.advance() is None
    decoder.feed([commit])
    (chunk,) = drain(decoder)
    assert [change.last for change in chunk.changes] == [True]
    assert chunk.checkpoint.state == state(0x100030)


def test_an_open_transaction_is_never_handed_out() -> None:
    decoder = make()
    decoder.feed([SHAPE, *transaction(1, 2)[:-1]])
    assert decoder.chunk(idle=True) is None
    assert decoder.pending == 2


def test_a_chunk_is_limited_in_bytes() -> None:
    third = "x" * (CHUNK_BYTES // 3)
    decoder = make()
    decoder.feed([SHAPE, *transaction(1, 2, third), *transaction(2, 2, third)])
    assert sizes(drain(decoder)) == [2, 2]
    decoder.feed(transaction(3, 7, third))
    chunks = drain(decoder)
    assert sizes(chunks) == [2, 2, 2, 1]
    assert [change.last for change in changes_of(chunks)] == [False] * 6 + [True]
    decoder.feed(transaction(4, 2, "x" * (2 * CHUNK_BYTES)))
    assert sizes(drain(decoder)) == [1, 1]


def test_full_says_when_to_stop_feeding() -> None:
    decoder = make()
    decoder.feed([SHAPE, *transaction(1, CHUNK_CHANGES)])
    answers = [decoder.full]
    decoder.feed(transaction(2, CHUNK_CHANGES))
    answers.append(decoder.full)
    assert decoder.pending == 2 * CHUNK_CHANGES
    decoder.chunk(idle=False)
    answers.append(decoder.full)
    assert answers == [False, True, False]


def test_a_keepalive_moves_the_checkpoint_between_transactions() -> None:
    decoder = make(Checkpoint("0000000000000050-00000000", state(0x60)))
    assert decoder.advance() is None
    decoder.keepalive(0x100)
    assert decoder.chunk(idle=True) is None
    chunk = decoder.advance()
    assert chunk is not None
    assert chunk.changes == []
    assert chunk.checkpoint == Checkpoint("0000000000000050-00000000", state(0x100))
    assert chunk.resume == state(0x60)
    assert decoder.advance() is None
    decoder.keepalive(0x80)
    assert decoder.advance() is None
    assert decoder.lsn == 0x100

    *open_frames, commit = transaction(1, 1)
    decoder.feed([SHAPE, *open_frames])
    decoder.keepalive(0x200)
    assert decoder.advance() is None
    decoder.feed([commit])
    assert decoder.advance() is None, "there is a change to be handed out first"
    (taken,) = drain(decoder)
    assert taken.checkpoint.state == state(0x100030)


def test_empty_transactions_move_the_checkpoint() -> None:
    decoder = make()
    decoder.feed(transaction(1, 0))
    assert decoder.chunk(idle=True) is None
    chunk = decoder.advance()
    assert chunk is not None
    assert chunk.checkpoint == Checkpoint("", state(0x100030))
    assert chunk.resume == state(0)


def test_a_new_source_starts_at_zero() -> None:
    decoder = make(None)
    decoder.feed([SHAPE, *transaction(1, 1)])
    (chunk,) = drain(decoder)
    assert chunk.resume == state(0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 2, 300, 700, 999, 1000, 1001, 2001]), max_size=6),
    st.sampled_from([1, 7, 500, 100_000]),
    st.data(),
)
def test_chunks_keep_every_promise(sizes_: list[int], step: int, data: st.DataObject) -> None:
    frames = [SHAPE]
    for number, size in enumerate(sizes_, 1):
        frames += transaction(number, size)
    decoder = make()
    chunks = []
    for start in range(0, len(frames), step):
        decoder.feed(frames[start : start + step])
        chunks += drain(decoder, idle=data.draw(st.booleans()) if step >= 500 else False)
    chunks += drain(decoder)

    positions = [change.position for change in changes_of(chunks)]
    assert positions == sorted(set(positions))
    assert len(positions) == sum(sizes_)
    lsn, saved = 0, state(0)
    for chunk in chunks:
        assert 1 <= len(chunk.changes) <= CHUNK_CHANGES
        assert chunk.checkpoint.position == chunk.changes[-1].position
        assert chunk.resume == saved
        saved = chunk.checkpoint.state
        assert parse_lsn(saved["lsn"]) >= lsn
        lsn = parse_lsn(saved["lsn"])
        commit_lsn = int(chunk.changes[-1].position[:16], 16)
        assert (lsn > commit_lsn) == chunk.changes[-1].last
    for number, size in enumerate(sizes_, 1):
        touched = [c for c in chunks if any(x.transaction == str(number) for x in c.changes)]
        assert len(touched) <= 1 or size > CHUNK_CHANGES

    if positions:
        # Whatever chunk was the last to be stored: nothing is lost, nothing comes twice.
        place = data.draw(st.integers(0, len(chunks) - 1))
        resumed = make(chunks[place].checkpoint)
        resumed.feed(frames)
        again = [change.position for change in changes_of(drain(resumed))]
        done = sum(sizes(chunks[: place + 1]))
        assert again == positions[done:]


def test_a_change_that_was_made_the_quick_way_is_complete() -> None:
    decoder = make()
    decoder.feed([SHAPE, *transaction(1, 3)])
    changes = [change for chunk in drain(decoder) for change in chunk.changes]
    assert [len(change) for change in changes] == [len(Change._fields)] * 3
