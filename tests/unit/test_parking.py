"""Which changes wait behind which letters, and how a refused batch is cut."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from connectors.letters import Outstanding, State
from dataflows.letters.parking import Parking, row, rows_of, sort, whole
from dataflows.letters.pieces import flat, transactions, units
from tests.unit.letters_model import change

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered

NOTHING = Outstanding((), {})


def parking(*letters: tuple[int, tuple[int, ...]]) -> Parking:
    return Parking(Outstanding([(number, "db.a", rows) for number, rows in letters], {}))


def test_a_row_is_known_by_its_topic_and_the_values_of_its_key() -> None:
    assert row("db.a", '{"id":1,"n":"x"}') == row("db.a", '{"user_id":1,"name":"x"}')
    assert row("db.a", '{"id":1}') != row("db.a", '{"id":2}')
    assert row("db.a", '{"id":1}') != row("db.b", '{"id":1}')
    assert row("db.a", '{"id":12345678901234567890}') != row("db.a", '{"id":12345678901234567891}')


def test_a_change_of_the_key_touches_both_rows() -> None:
    assert set(rows_of([change(1, key=2, before=1)])) == {
        row("db.a", '{"id":1}'),
        row("db.a", '{"id":2}'),
    }
    assert rows_of([change(1, "t")]) == (whole("db.a"),)
    many = rows_of([change(1, key=number) for number in range(100)])
    assert many == (whole("db.a"),)


def test_a_row_alone_in_its_envelope_touches_its_key() -> None:
    unwrapped = change(1, key=1)._replace(envelope=b'{"id":1,"op":7,"before":"x"}')
    assert rows_of([unwrapped]) == (row("db.a", '{"id":1}'),)


def test_what_an_earlier_letter_holds_waits_and_what_comes_before_it_does_not() -> None:
    rows = rows_of([change(1)])
    held = parking((10, rows))
    assert held.blocking(["db.a"], rows, 11) == 10
    assert held.blocking(["db.a"], rows, 9) == 0
    assert held.blocking(["db.a"], rows_of([change(1, key=2)]), 11) == 0


def test_a_letter_that_came_back_is_not_written() -> None:
    held = parking((10, rows_of([change(10)])))
    done = sort(held, [change(9), change(10), change(11)], {}, parks=True)
    assert [each.sequence for each in done.kept] == [9]
    assert [(each.sequence, each.state) for each in done.letters] == [(11, State.PARKED)]
    assert done.letters[0].reason.message == "waits behind 10"


def test_after_a_refused_truncate_its_whole_topic_waits() -> None:
    held = parking((5, rows_of([change(5, "t")])))
    done = sort(held, [change(6, "c", 3), change(7, "c", 3, table="b")], {}, parks=True)
    assert [each.sequence for each in done.kept] == [7]
    assert done.letters[0].rows == (row("db.a", '{"id":3}'), whole("db.a"))


def test_a_truncate_goes_on_and_is_noted_for_the_letters_before_it() -> None:
    held = parking((5, rows_of([change(5)])))
    done = sort(held, [change(6, "t"), change(7, "t", table="b")], {}, parks=True)
    assert [each.sequence for each in done.kept] == [6, 7]
    assert done.truncated == [("db.a", 6)]
    assert held.emptied(5)
    held.add(8, "db.a", ())
    assert not held.emptied(8)


def test_a_change_whose_key_a_sink_has_altered_waits_for_both() -> None:
    origin = change(6, key=1)
    made = origin._replace(key='{"id":"masked"}')
    held = parking((5, rows_of([change(5, key=1)])))
    done = sort(held, [made], {6: origin}, parks=True)
    assert done.letters[0].rows == (*rows_of([made]), *rows_of([origin]))


def test_without_parking_only_the_change_itself_is_put_aside() -> None:
    held = Parking(NOTHING)
    done = sort(held, [change(1, failed=True), change(2)], {}, parks=False)
    assert [(each.state, each.rows) for each in done.letters] == [(State.SKIPPED, ())]
    assert [each.sequence for each in done.kept] == [2]


letters = st.lists(st.lists(st.integers(1, 6), max_size=3), max_size=12)


@given(letters, st.data())
def test_a_group_is_all_that_hangs_together(found: list[list[int]], data: st.DataObject) -> None:
    by_number = {number: set(rows) for number, rows in enumerate(found, 1)}
    order = data.draw(st.permutations(list(by_number)))
    held = parking(*[(number, tuple(by_number[number])) for number in order])
    for number in data.draw(st.sets(st.sampled_from(order)) if order else st.just(set[int]())):
        held.remove(number)
        del by_number[number]
    assert len(held) == len(by_number)
    for number in by_number:
        group = {number}
        while more := {
            other
            for other in by_number
            if other not in group and any(by_number[other] & by_number[each] for each in group)
        }:
            group |= more
        assert held.group([number]) == sorted(group)
    for each in range(1, 7):
        first = min((number for number, rows in by_number.items() if each in rows), default=0)
        assert held.blocking([], [each], 99) == first


@given(st.lists(st.tuples(st.sampled_from("ut"), st.sampled_from(["", "x", "y"]), st.booleans())))
def test_cutting_loses_nothing_and_keeps_what_belongs_together(
    steps: list[tuple[str, str, bool]],
) -> None:
    changes: list[Delivered] = [
        change(number, op, transaction=transaction, last=last)
        for number, (op, transaction, last) in enumerate(steps, 1)
    ]
    assert flat(units(changes)) == changes
    assert flat(transactions(changes)) == changes
    for one, two in zip(transactions(changes), transactions(changes)[1:], strict=False):
        assert one[-1].last or not one[-1].transaction or one[-1].transaction != two[0].transaction
    for one, two in zip(units(changes), units(changes)[1:], strict=False):
        ops = [json.loads(each.envelope)["op"] for each in (one[-1], two[0])]
        assert (
            ops != ["t", "t"]
            or one[-1].transaction != two[0].transaction
            or not one[-1].transaction
        )
