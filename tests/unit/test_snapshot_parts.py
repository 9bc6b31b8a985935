"""The parts of a snapshot that need no server."""

from __future__ import annotations

import json

import pytest

from connectors.contracts.changes import Change, Column, TableSchema
from connectors.contracts.source import Checkpoint
from connectors.errors import FatalError
from connectors.postgres.pgoutput.chunks import ChunkBuffer
from connectors.postgres.pgoutput.lsn import format_lsn
from connectors.postgres.snapshot import copy_text
from connectors.postgres.snapshot.visibility import parse_visible, short
from connectors.snapshot import touches
from connectors.snapshot.progress import STATE, Progress, read
from connectors.snapshot.touches import INVISIBLE, Emitted, Touches

TABLE = TableSchema(
    "shop", "public", "items", (Column("id", "bigint", "number"), Column("é", "text")), ("id", "é")
)
KEYLESS = TableSchema("shop", "public", "items", TABLE.columns, ())


class Sees:
    """A snapshot that holds these transactions."""

    def __init__(self, *transactions: str) -> None:
        self._transactions = transactions

    def sees(self, transaction: str) -> bool:
        return transaction in self._transactions


def key(id_: int, name: str = "ü") -> str:
    return json.dumps({"id": id_, "é": name}, separators=(",", ":"))


def change(
    op: str,
    id_: int,
    transaction: str,
    *,
    before: dict[str, object] | None = None,
    missing: tuple[str, ...] = (),
    table: TableSchema = TABLE,
) -> Change:
    row = None if op in "dt" else {"id": id_, "é": "ü"}
    body = {"before": before, "after": row}
    envelope = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    named = key(id_) if table.key and op != "t" else None
    return Change(op, table, "p", named, transaction, False, envelope, missing)


def row(id_: int, table: TableSchema = TABLE) -> Change:
    return change("r", id_, "", table=table)


def window(*before: str, most: int = 10) -> Touches:
    return Touches("public", "items", frozenset(before), most)


def test_only_what_the_snapshot_does_not_see_takes_a_row_out() -> None:
    open_ = window()
    open_.note([change("c", 1, "7"), change("u", 2, "8"), change("d", 3, "8"), change("u", 1, "7")])
    open_.read(Sees("7"))
    assert [open_.outdated(row(id_)) for id_ in (1, 2, 3, 4)] == [False, True, True, False]
    open_.note([change("u", 4, "9")])
    assert open_.outdated(row(4))
    assert not open_.spoilt


def test_a_change_of_key_takes_the_old_row_out() -> None:
    open_ = window()
    open_.note([change("u", 2, "8", before={"id": 1, "é": "ü"})])
    # under identity FULL, with columns that are not the key's
    open_.note([change("u", 4, "8", before={"id": 3, "x": [1.50, None], "é": "ü"})])
    open_.read(Sees())
    assert [open_.outdated(row(id_)) for id_ in (1, 2, 3, 4, 5)] == [True] * 4 + [False]


def test_without_a_key_rows_are_known_by_all_they_hold() -> None:
    open_ = window()
    old: dict[str, object] = {"id": 1, "é": "ü"}
    open_.note([change("d", 1, "8", before=old, table=KEYLESS)])
    open_.read(Sees())
    assert open_.outdated(row(1, KEYLESS))
    assert not open_.outdated(row(2, KEYLESS))


def test_other_tables_do_not_count() -> None:
    other = TableSchema("shop", "sales", "items", TABLE.columns, TABLE.key)
    open_ = window()
    open_.note([change("u", 1, "8", table=other), change("t", 1, "8", table=other)])
    open_.read(Sees())
    assert not open_.outdated(row(1))
    assert not open_.spoilt


def test_a_transaction_whose_keys_nobody_noted_spoils_the_chunk() -> None:
    open_ = window("7")
    open_.read(Sees("7"))
    assert not open_.spoilt
    open_ = window("7", "8")
    open_.read(Sees("7"))
    assert open_.spoilt == INVISIBLE
    open_ = window("7", "8")
    open_.release(["8"])
    open_.read(Sees("7"))
    assert not open_.spoilt


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ([change("t", 0, "8")], "truncated"),
        ([change("u", 1, "8"), change("u", 1, "8", table=KEYLESS)], "shape"),
        ([change("u", id_, "8") for id_ in range(12)], "too many"),
    ],
)
def test_what_spoils_a_chunk(changes: list[Change], word: str) -> None:
    open_ = window()
    open_.note(changes)
    assert word in open_.spoilt


def test_a_row_that_was_never_whole_is_not_left_out_but_read_again() -> None:
    open_ = window()
    open_.note([change("u", 1, "8", missing=("é",)), change("u", 2, "7", missing=("é",))])
    open_.read(Sees("7"))
    assert not open_.outdated(row(2))
    assert not open_.spoilt
    assert open_.outdated(row(1))
    assert "whole row" in open_.spoilt


def test_emitted_transactions_are_forgotten_once_they_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emitted = Emitted()
    emitted.add([change("u", 1, "7"), change("u", 1, "8"), change("m", 1, "")])
    emitted.forget(Sees("7"))
    assert emitted.snapshot() == {"8"}
    monkeypatch.setattr(touches, "MOST_TRANSACTIONS", 3)
    emitted.add([change("u", 1, str(number)) for number in range(10, 20)])
    assert emitted.overflowed is True
    emitted.restart(["30"])
    assert emitted.snapshot() == {"30"}


def test_progress_survives_its_state() -> None:
    begun = Progress().reached("0000016385", ("1", "é'\n"), 10)
    state = {STATE: begun.encoded}
    assert state[STATE].isascii()
    assert read(state) == begun
    assert read({}) is None
    assert begun.begins("0000016385")
    assert not begun.begins("0000016384")
    ended = begun.ended("0000016385", 5)
    assert ended.rows == 15
    assert not ended.begins("0000016385")
    assert ended.begins("0000016386")
    done = ended.finished()
    assert done.done
    assert done.rows == 15
    assert not done.begins("0000016386")
    with pytest.raises(FatalError) as caught:
        read({STATE: "{"})
    assert caught.value.code == "snapshot.state_unreadable"


@pytest.mark.parametrize(
    ("xid", "seen"),
    [(99, True), (100, False), (101, True), (104, False), (105, False), (2**32 - 1, True)],
)
def test_visibility_of_the_log_s_short_ids(xid: int, seen: bool) -> None:
    epoch = 3 << 32
    visible = parse_visible(f"{epoch + 100}:{epoch + 105}:{epoch + 100},{epoch + 104}")
    assert visible.sees(str(xid)) is seen
    assert short(str(epoch + 104)) == "104"


def test_visibility_across_the_end_of_an_epoch() -> None:
    visible = parse_visible(f"{(1 << 32) - 2}:{(1 << 32) + 3}:{(1 << 32) - 2}")
    seen = [visible.sees(str(xid)) for xid in (2**32 - 3, 2**32 - 2, 2**32 - 1, 1, 2, 3, 4)]
    assert seen == [True, False, True, True, True, False, False]


@pytest.mark.parametrize("text", ["", "1:2", "1:2:x", "1:2:3,"])
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(FatalError):
        parse_visible(text)


def test_lines_of_copy() -> None:
    assert [line.split("\t") for line in copy_text.lines(b"a\t\tb\n\n")] == [
        ["", "\1a", "\1", "\1b"],
        ["", "\1"],
    ]
    assert copy_text.lines(b"") == []
    (line,) = copy_text.lines("\\N\té\t\\\\N\ta\\tb\\n\\\\x\n".encode())
    assert copy_text.values(line) == [None, "\xc3\xa9", "\\N", "a\tb\n\\x"]
    assert copy_text.at(line, (3, 1)) == ("a\tb\n\\x", "é")


def between(buffer: ChunkBuffer) -> bool:
    return buffer.boundary


def test_rows_stand_between_transactions() -> None:
    state = {"lsn": format_lsn(0x2000), "system": "1", "snapshot": "a"}
    buffer = ChunkBuffer("shop", "1", Checkpoint("0000000000001000-00000004", state))
    assert between(buffer)
    prefix, index = buffer.place()
    assert (prefix, index) == ("0000000000001FFF-", 1)
    rows = [Change("r", TABLE, f"{prefix}{index:08X}", key(1), "", True, b"{}")]
    chunk = buffer.insert(rows, {"snapshot": "b"})
    assert chunk.resume == state
    assert chunk.checkpoint == Checkpoint(rows[0].position, {**state, "snapshot": "b"})
    assert buffer.place() == (prefix, 2)
    # the log goes on: its checkpoints carry the same
    buffer.add(Change("c", TABLE, "0000000000002000-00000000", key(1), "7", False, b"{}"))
    assert between(buffer)
    buffer.commit(0x2040)
    assert not between(buffer)
    taken = buffer.take(idle=True)
    assert taken is not None
    assert taken.resume == {**state, "snapshot": "b"}
    assert taken.checkpoint.state == {"lsn": "0/2040", "system": "1", "snapshot": "b"}
    assert buffer.place() == ("000000000000203F-", 1)
    empty = buffer.insert([], {"snapshot": "c"})
    assert empty.checkpoint.position == "0000000000002000-00000000"
    assert empty.checkpoint.state["snapshot"] == "c"


def test_no_rows_stand_in_the_middle_of_a_transaction() -> None:
    buffer = ChunkBuffer("shop", "1", None)
    for number in range(1500):
        buffer.add(Change("c", TABLE, f"{16:016X}-{number:08X}", key(number), "7", False, b"{}"))
    assert not between(buffer)
    assert buffer.take(idle=False)
    assert not between(buffer)
    buffer.commit(0x40)
    assert buffer.take(idle=True)
    assert between(buffer)
    # a process that starts there again finds the places that are free
    resumed = ChunkBuffer(
        "shop", "1", Checkpoint(f"{0x3F:016X}-0000000A", {"lsn": "0/40", "system": "1"})
    )
    assert resumed.place() == (f"{0x3F:016X}-", 11)
