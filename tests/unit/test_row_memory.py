from __future__ import annotations

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.memory.rows import RowMemory, short_hash

ROWS = [short_hash(b"%d" % number) for number in range(12)]
VALUES = [bytes([number] * 8) for number in range(4)]
TABLE, OTHER = short_hash(b"table"), short_hash(b"other")

_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from(ROWS), st.sampled_from(VALUES)),
        st.tuples(st.sampled_from(["recall", "forget"]), st.sampled_from(ROWS), st.just(b"")),
        st.tuples(st.just("pack"), st.just(b""), st.just(b"")),
    )
)


@settings(deadline=None)
@given(_ACTIONS, st.integers(1, 8))
def test_the_rows_that_were_touched_last_are_remembered(
    actions: list[tuple[str, bytes, bytes]], limit: int
) -> None:
    memory, model = RowMemory(limit), OrderedDict[bytes, bytes]()
    for action, row, value in actions:
        if action == "store":
            memory.store(TABLE, row, value)
            model[row] = value
            model.move_to_end(row)
            if len(model) > limit:
                model.popitem(last=False)
        elif action == "recall":
            assert memory.recall(TABLE, row) == model.get(row)
            if row in model:
                model.move_to_end(row)
        elif action == "forget":
            memory.forget(TABLE, row)
            model.pop(row, None)
        else:
            memory = RowMemory(limit, memory.pack())
        assert len(memory) == len(model)


def test_a_large_memory_forgets_some_rows_at_a_time_and_never_the_latest() -> None:
    memory, limit = RowMemory(6400), 6400
    rows = [short_hash(b"%d" % number) for number in range(30_000)]
    for number, row in enumerate(rows):
        memory.store(TABLE, row, VALUES[number % 4])
        assert len(memory) <= limit
    assert len(memory) >= limit * 63 // 64
    assert all(memory.recall(TABLE, row) for row in rows[-limit * 63 // 64 :])
    assert memory.recall(TABLE, rows[0]) is None


def test_an_emptied_table_is_forgotten_and_no_other_one() -> None:
    memory = RowMemory(100)
    memory.store(TABLE, ROWS[0], VALUES[0])
    memory.store(OTHER, ROWS[1], VALUES[1])
    memory.forget_table(TABLE, short_hash(b"first"))
    assert memory.recall(TABLE, ROWS[0]) is None
    memory.store(TABLE, ROWS[0], VALUES[2])
    memory = RowMemory(100, memory.pack())
    assert memory.recall(TABLE, ROWS[0]) == VALUES[2]
    assert memory.recall(OTHER, ROWS[1]) == VALUES[1]
    memory.forget_table(TABLE, short_hash(b"second"))
    assert memory.recall(TABLE, ROWS[0]) is None


def test_a_smaller_limit_forgets_the_oldest_rows_of_an_earlier_memory() -> None:
    memory = RowMemory(12)
    for row in ROWS:
        memory.store(TABLE, row, VALUES[0])
    smaller = RowMemory(3, memory.pack())
    assert [row for row in ROWS if smaller.recall(TABLE, row)] == ROWS[-3:]


def test_a_memory_of_another_version_begins_empty() -> None:
    memory = RowMemory(10)
    memory.store(TABLE, ROWS[0], VALUES[0])
    version, *rest = memory.pack()
    assert len(RowMemory(10, (version + 1, rest[0], rest[1], rest[2]))) == 0  # type: ignore[arg-type]
