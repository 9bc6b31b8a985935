"""Rows of JSON: their columns, their keys, their envelopes."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import Column
from connectors.json_rows import Envelopes, JsonTable, decode, encode, key_text


def table(*columns: Column, fixed: bool = False) -> JsonTable:
    return JsonTable("api", "api", "users", ["id"], columns, fixed=fixed)


def kinds(of: JsonTable) -> dict[str, str]:
    return {column.name: column.type for column in of.schema.columns}


def test_columns_are_the_union_of_what_was_seen_and_stay() -> None:
    users = table()
    assert users.learn({"id": 1, "name": "Ada", "gone": None})
    assert not users.learn({"id": 2})
    assert users.learn({"id": 3, "tags": ["a"], "active": True})
    assert kinds(users) == {"id": "integer", "name": "string", "tags": "json", "active": "boolean"}
    assert users.render({"id": 4, "more": 1}) == (b'{"id":4,"name":null,"tags":null,"active":null}')
    assert users.schema.key == ("id",)
    assert users.schema.dialect == "json"


def test_a_column_of_several_kinds_is_json() -> None:
    users = table()
    users.learn({"id": 1, "size": 1})
    first = users.schema.hash
    assert users.learn({"id": 1, "size": "large"})
    assert kinds(users)["size"] == "json"
    assert users.schema.hash != first
    assert not users.learn({"id": 1, "size": False})


def test_whole_numbers_become_numbers_when_others_come() -> None:
    users = table()
    users.learn({"id": 1, "size": 1, "large": 2**70})
    assert kinds(users) == {"id": "integer", "size": "integer", "large": "number"}
    assert users.learn({"id": 1, "size": 1.5})
    assert not users.learn({"id": 1, "size": 2, "large": 3})
    assert kinds(users)["size"] == "number"
    assert {column.json for column in users.schema.columns} == {"number"}


def test_declared_columns_are_all_there_are() -> None:
    users = table(Column("id", "number", "number"), Column("name", "string", "string"), fixed=True)
    assert not users.learn({"id": 1, "name": 5, "more": 1})
    assert users.render({"id": 1, "more": 1}) == b'{"id":1,"name":null}'


@pytest.mark.parametrize("row", [{}, {"id": None}, {"id": [1]}, {"id": {}}])
def test_a_row_without_a_whole_key_has_none(row: dict[str, object]) -> None:
    users = table(Column("id", "number", "number"))
    assert users.key_of(row) is None


def test_a_key_is_ascii_without_blanks() -> None:
    assert key_text({"id": "Ä b", "n": 1}) == '{"id":"\\u00c4 b","n":1}'
    assert table(Column("id", "number", "number")).key_of({"id": 7, "x": 1}) == '{"id":7}'


def test_a_keys_numbers_keep_their_digits_beside_other_letters() -> None:
    row = decode('{"n":12345678901234567890.1234567890123,"s":"ä😀"}'.encode())
    assert isinstance(row, dict)
    assert key_text(row) == r'{"n":12345678901234567890.1234567890123,"s":"\u00e4\ud83d\ude00"}'


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_a_text_in_a_key_is_what_json_makes_of_it(text: str) -> None:
    made = key_text({"id": text})
    assert made.isascii()
    assert json.loads(made) == {"id": text}


@pytest.mark.parametrize(
    "text",
    [b"0.1", b"1e400", b"12345678901234567890.123", b"1.10", b"-0.0", b"123456789012345678901"],
)
def test_numbers_keep_their_value(text: bytes) -> None:
    assert Decimal(encode(decode(text)).decode()) == Decimal(text.decode())


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(alphabet=st.characters(codec="utf-8"))
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(alphabet=st.characters(codec="utf-8")), inner)
        ),
    )
)
def test_what_is_read_is_written_again(value: object) -> None:
    assert decode(encode(value)) == value


def test_an_envelope_is_debeziums() -> None:
    made = Envelopes("webhook", "hooks", "hooks", "users").envelope(
        "u", None, b'{"id":1}', happened_ms=5, now_ms=6, transaction="7", order=2, more=b',"n":1'
    )
    found = msgspec.json.decode(made)
    assert found["source"].pop("version")
    assert found == {
        "before": None,
        "after": {"id": 1},
        "source": {
            "connector": "webhook", "name": "hooks", "ts_ms": 5, "snapshot": "false",
            "schema": "hooks", "table": "users", "n": 1,
        },
        "op": "u",
        "ts_ms": 6,
        "transaction": {"id": "7", "total_order": 2},
    }  # fmt: skip
