"""What transforms have in common: how they are written, how they fail, what they do not touch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from connectors.contracts.changes import Change, Column, TableSchema
from dataflows.failing import StepError
from dataflows.filters import Filter
from dataflows.steps import Steps
from dataflows.transforms.record import key_of_row, row_of_key
from dataflows.transforms.spec import Transforms
from tests.unit.changes import change, columns, row
from tests.unit.transforming import Rows, failure, one, python, steps

if TYPE_CHECKING:
    pass


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"drop": ["a"], "keep": ["b"]},
        {"dorp": ["a"]},
        {"drop": []},
        {"mask": {"fields": ["a"], "with": "sha256"}},
        {"mask": {"fields": ["a"], "salt": "s"}},
        {"mask": {"fields": ["a"], "with": "rot13"}},
        {"cast": {"fields": {"a": "money"}}},
        {"set": {}},
        {"set": {"fields": {"a": [1]}}},
        {"set": {"cel": {"a": "after."}}},
        {"set": {"cel": {"a": "after.b"}}},
        {"set": {"cel": {"a": "'x'"}, "fields": {"a": 1}}},
        {"python": "not a reference"},
        "rename",
    ],
)
def test_what_is_no_transform_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Any](Transforms).validate_python([written])


def test_by_choice_a_change_is_dropped_or_kept_without_the_step_that_fails() -> None:
    written = [{"drop": ["note"]}, {"drop": ["id"]}, {"drop": ["email"]}]
    assert steps(*written, on_error="drop").apply(change()) == ()
    [made] = steps(*written, on_error="keep").apply(change())
    assert list(row(made.change)) == ["id", "amount", "active", "doc"]
    assert not made.change.failed


def test_a_change_that_failed_carries_the_key_that_it_was_to_have() -> None:
    written = [{"rename": {"fields": {"id": "user_id"}}}, {"cast": {"fields": {"note": "integer"}}}]
    [made] = steps(*written).apply(change())
    assert made.change.failed
    assert made.change.key == '{"user_id":8}'
    assert made.change.envelope == change().envelope


def test_truncates_get_the_new_shape_and_messages_pass() -> None:
    truncate = change("t", key=None)
    made = one(truncate, {"drop": ["note"]}, python("shout", n="integer"))
    assert list(columns(made)) == ["id", "email", "amount", "active", "doc", "n"]
    message = Change("m", None, "1", None, "", False, b'{"op":"m"}')
    assert one(message, {"drop": ["note"]}, "unwrap") == message


@pytest.mark.parametrize("value", ["1e999", r'"\ud800"', "[" * 3000 + "]" * 3000])
@pytest.mark.parametrize(
    "written",
    [
        {"set": {"cel": {"x": "string(size(after.doc))"}}},
        {"python": {"function": "tests.unit.python_functions:forgets"}},
    ],
)
def test_a_value_that_cannot_be_decoded_is_an_error_and_no_crash(value: str, written: Any) -> None:
    was = change(after=f'{{"id":8,"doc":{value}}}')
    assert failure(was, written).code == "step.unreadable_value"
    [made] = steps(written, on_error="keep").apply(was)
    assert made.change.envelope == was.envelope
    with pytest.raises(StepError, match="cannot be decoded"):
        Steps("users", Filter("size(after.doc) > 1")).passes(was)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_names = st.text(min_size=1, max_size=6)


@given(
    rows=st.dictionaries(_names, _values, min_size=1, max_size=6),
    spaced=st.booleans(),
    data=st.data(),
)
def test_whatever_is_done_what_is_not_touched_keeps_its_bytes_and_shape_and_row_agree(
    rows: dict[str, Any], spaced: bool, data: st.DataObject
) -> None:
    names = list(rows)
    separators = (", ", ": ") if spaced else (",", ":")
    texts = {
        name: json.dumps(value, ensure_ascii=data.draw(st.booleans()), separators=separators)
        for name, value in rows.items()
    }
    after = "{" + ",".join(f"{json.dumps(n)}:{text}" for n, text in texts.items()) + "}"
    shape = TableSchema("s", "p", "t", tuple(Column(n, "jsonb", "json") for n in names), ())
    nulls = tuple(name for name in names if rows[name] is None)
    missing = tuple(data.draw(st.lists(st.sampled_from(names), unique=True)))
    was = Change(
        "u",
        shape,
        "1",
        None,
        "",
        True,
        f'{{"before":null,"after":{after},"op":"u"}}'.encode(),
        missing,
        nulls,
    )
    touched, gone, renamed = (
        data.draw(st.sampled_from(names)),
        data.draw(st.sampled_from(names)),
        data.draw(st.sampled_from(names)),
    )
    made = one(
        was,
        {"mask": {"fields": [touched], "with": "sha256", "salt": "s"}},
        {"rename": {"fields": {renamed: "a new name"}}},
        {"drop": [gone]},
        {"set": {"fields": {"set here": 1}}},
    )
    result = msgspec.json.decode(made.envelope, type=Rows).after
    assert made.table is not None
    assert list(result) == [column.name for column in made.table.columns]
    for name, value in texts.items():
        new = "a new name" if name == renamed else name
        if new == gone and new in result:  # it is the one that was renamed to it
            continue
        if new not in result:
            assert new == gone
        elif name != touched or name in missing or rows[name] is None:
            assert bytes(result[new]) == value.encode()
        else:
            assert len(bytes(result[new])) == 66
    assert set(made.unavailable) <= set(result)
    kinds = {column.name: column.json for column in made.table.columns}
    assert all(kinds[name] == "json" for name in made.json_nulls)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1))
def test_a_key_is_ascii_without_blanks_and_reads_back_the_same(key: dict[str, Any]) -> None:
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in key.items()}
    text = key_of_row(raw)
    assert text.isascii()
    assert json.loads(text) == key
    assert {n: json.loads(bytes(v)) for n, v in row_of_key(text).items()} == key
