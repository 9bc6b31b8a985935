from __future__ import annotations

import pytest

from connectors.contracts.changes import Change
from dataflows.expressions import Expression
from dataflows.failing import StepError
from dataflows.filters import Filter, check_filter
from tests.unit.changes import change, delivered


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("op != 'd'", {"op": None}),
        ("op != 'd' || before.country == 'DE'", {"op": None, "before": {"country"}}),
        ("after['x y'] == 1 && has(after.z)", {"after": {"x y", "z"}}),
        ("after.list.exists(v, v == before.q)", {"after": {"list"}, "before": {"q"}}),
        ("after.doc.deep.er == 1", {"after": {"doc"}}),
        ("size(after) > 1 && after.x == 1", {"after": None}),
        ("after[op] == 1", {"after": None, "op": None}),
        ("(op == 'c' ? after : before).x == 1", {"op": None, "before": None, "after": None}),
        ("{'a': key.id}.a in [source.table]", {"key": {"id"}, "source": {"table"}}),
        ("[1, 2].map(x, x + after.n)[0] == 1", {"after": {"n"}}),
    ],
)
def test_it_is_known_what_an_expression_looks_at(text: str, looks: object) -> None:
    assert Expression(text).looks == looks


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("op !! 'd'", "line 1, column 4", "Syntax error"),
        ("op == 'd' &&\n  opp == 'c'", "line 2, column 3", "undeclared reference to 'opp'"),
        ("op == 1", "line 1, column 4", "no matching overload"),
        ("", "line 1, column 1", "Syntax error"),
        ("op", "", "a filter is true or false, this is string"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place(text: str, place: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_filter(text)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("op == 'c'", True),
        ("op == 'd'", False),
        ("after.email.endsWith('.org')", True),
        ("double(after.amount) > 12.5", False),
        ("after.doc.a.b == 1.1 && after.active", True),
        ("before == null || before.x == 1", True),
        ("has(after.nothing)", False),
        ("key.id == 8 && source.lsn == 7", True),
        ("after.note.size() == 5", True),
        ("size(after) == 6", True),
        ("after.email.split('@')[0] == 'ada'", True),
    ],
)
def test_a_filter_is_true_or_false(text: str, kept: bool) -> None:
    one = Filter(text)
    assert one.keeps(change()) is kept
    assert one.keeps(delivered(change())) is kept


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("before.x == 1", "filter.no_row"),
        ("after.nothing == 1", "filter.no_such_field"),
        ("after.id > 'a'", "filter.wrong_type"),
        ("1 / (after.id - 8) == 1", "filter.divide_by_zero"),
        ("int(after.email) == 1", "filter.cannot_convert"),
        ("after.doc.l[7] == 1", "filter.no_such_element"),
        ("after.doc", "filter.not_boolean"),
        ("timestamp(after.email) == timestamp(after.email)", "filter.cannot_convert"),
        ("after.email.matches(after.email + '(')", "filter.failed"),
    ],
)
def test_what_has_no_value_is_told_without_the_rows_values(text: str, code: str) -> None:
    with pytest.raises(StepError) as caught:
        Filter(text).keeps(change())
    assert caught.value.code == code
    assert "ada" not in caught.value.message


def test_a_name_that_was_computed_from_the_row_is_not_told() -> None:
    with pytest.raises(StepError) as caught:
        Filter("after.doc[after.email] == 1").keeps(change())
    assert caught.value.code == "filter.no_such_field"
    assert "ada" not in caught.value.message


def test_a_number_beyond_64_bits_is_an_error_and_not_another_number() -> None:
    with pytest.raises(StepError) as caught:
        Filter("after.id > 0").keeps(change(after=f'{{"id":{2**70}}}'))
    assert caught.value.code == "filter.out_of_range"


def test_a_value_that_the_log_did_not_carry_is_absent() -> None:
    given = change("u", unavailable=("note",))
    assert Filter("!has(after.note) && has(after.email)").keeps(given)
    with pytest.raises(StepError):
        Filter("after.note != ''").keeps(given)


def test_a_change_is_not_decoded_for_its_operation() -> None:
    given = Change("d", None, "1", None, "", False, b"not even JSON")
    assert Filter("op == 'd'").keeps(given)
    assert not Filter("op != 'd' || key != null").keeps(given)


def test_columns_of_any_name_can_be_asked_for() -> None:
    given = change(after='{"o\\"dd \\\\":1,"größe":2}')
    assert Filter("""after['o"dd \\\\'] == 1 && after['größe'] == 2""").keeps(given)
