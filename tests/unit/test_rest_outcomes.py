"""What a poll finds against what is known, and how that is kept."""

from __future__ import annotations

import io
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import GapError
from connectors.rest import names
from connectors.rest.compare import Comparison, Entry
from connectors.rest.names import PollName
from connectors.rest.outcome import VERSION, Found, Head, Outcome, position, split_position, write
from connectors.rest.records import Item
from tests.unit.rest_records import only

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def item(number: int, value: str) -> Item:
    return only(msgspec.json.encode([{"id": number, "v": value}]))


States = st.dictionaries(st.integers(0, 30), st.sampled_from("abc"), max_size=12)


@settings(deadline=None, max_examples=40)
@given(st.lists(States, min_size=1, max_size=6), st.data())
def test_a_comparison_finds_what_has_changed(
    states: list[Mapping[int, str]], data: st.DataObject
) -> None:
    known: Mapping[int, str] = {}
    base: io.BytesIO | None = None
    comparison = Comparison()
    try:
        for state in states:
            comparison.begin()
            wanted = [item(number, value) for number, value in state.items()]
            noise = data.draw(st.lists(st.sampled_from(list(state.items()) or [(0, "z")])))
            comparison.add([item(number, value + "!") for number, value in noise if state])
            comparison.add(wanted)
            found = {change.key: change for change in comparison.found()}
            assert {key: change.known for key, change in found.items()} == {
                each.key: number in known
                for each, (number, value) in zip(wanted, state.items(), strict=True)
                if known.get(number) != value
            }
            gone = sorted(set(known) - set(state))
            assert comparison.missing == comparison.give_up(1) == len(gone)
            assert sorted(comparison.deleted()) == sorted(f'{{"id":{number}}}' for number in gone)
            comparison.settle()
            assert comparison.size == len(state)
            known = state
            if data.draw(st.booleans()):
                base = io.BytesIO()
                comparison.write_base(base)
                comparison.base_stored()
                base.seek(0)
            if data.draw(st.booleans()):
                delta = list(comparison.delta())
                comparison.close()
                comparison = Comparison(base)
                comparison.patch(delta)
                if base is not None:
                    base.seek(0)
    finally:
        comparison.close()


def test_a_comparison_leaves_nothing_behind_when_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Comparison() as comparison:
        comparison.begin()
        comparison.add([item(number, "a") for number in range(3000)])
        comparison.settle()
        base = io.BytesIO()
        comparison.write_base(base)
        assert list(tmp_path.iterdir()) == []
        assert comparison.size == 3000


HEAD = Head(VERSION, 3, 1, "base-x", 2, 2, "full", [("id", "integer")])
DELTA = [Entry('{"id":1}', b"h" * 16, None), Entry('{"id":2}', None, 5)]
CHANGES = [
    Found("d", '{"id":3}', None, None, b"null"),
    Found("c", '{"id":"\\n"}', b"\n" * 16, "x", b'{"id":"\\n"}'),
]


def stored() -> bytes:
    file = io.BytesIO()
    write(file, HEAD, DELTA, CHANGES)
    return file.getvalue()


def read_all(data: bytes) -> tuple[Head, list[Entry], list[Found]]:
    with closing(Outcome(io.BytesIO(data), "poll-x")) as outcome:
        return outcome.head, list(outcome.delta()), list(outcome.changes())


def test_an_outcome_is_read_as_it_was_written() -> None:
    assert read_all(stored()) == (HEAD, DELTA, CHANGES)


def test_a_damaged_outcome_is_a_gap() -> None:
    whole = stored()
    for data in (whole[: len(whole) // 2], b"", b"junk" * 20, whole[:-12] + b"x" * 12):
        with pytest.raises(GapError) as caught:
            read_all(data)
        assert caught.value.code == "rest.outcome_damaged"


def test_positions_sort_like_polls() -> None:
    all_ = [position(poll, index) for poll in (1, 2, 10) for index in (0, 9, 10)]
    assert all_ == sorted(all_)
    assert {len(text) for text in all_} == {22}
    assert split_position(position(7, 8)) == (7, 8)
    assert split_position("") == (0, -1)


def test_outcomes_make_a_chain() -> None:
    first = names.following(None, 1)
    second = names.following(first, 2)
    third = names.following(second, 3)
    rival = names.following(second, 3)
    assert names.parse(str(second)) == second
    all_ = [str(name) for name in (third, first, second, rival)] + ["base-000000000001-" + "0" * 12]
    assert names.chain_after(first, all_) == [second, min(third, rival)]
    assert names.chain_after(None, all_)[0] == first
    assert names.chain_after(None, all_, floor=1) == []
    assert names.chain_to(rival, first, all_) == [second, rival]
    assert names.chain_to(third, None, all_) == [first, second, third]
    assert names.chain_to(third, first, [str(third)]) is None
    assert names.chain_to(second, second, all_) == []
    assert names.chain_to(first, second, all_) is None
    assert names.base_number(names.base_name(12)) == 12
    assert names.base_number(str(first)) == -1
    assert isinstance(first, PollName)


def test_only_what_polls_in_a_row_have_missed_is_given_up() -> None:
    with Comparison() as comparison:
        for seen, polls, gone in (
            ((1, 2, 3), 0, 0),
            ((1,), 3, 0),
            ((1, 2), 3, 0),
            ((1,), 0, 0),  # of no account
            ((1,), 3, 1),
            ((1,), 3, 0),
            ((1,), 3, 1),
            ((1, 2), 1, 0),
            ((2,), 1, 1),
        ):
            comparison.begin()
            comparison.add([item(number, "x") for number in seen])
            assert comparison.give_up(polls) == gone
            comparison.settle()
        assert comparison.size == 1
