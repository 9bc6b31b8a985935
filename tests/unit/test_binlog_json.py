"""MySQL's binary JSON: both readers, of what is written by the letter of the format."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.mysql.binlog import fast_json, jsonb
from tests.unit.binlog_json import Value, document

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
)
_NAMES = st.sampled_from(["a", "b", "tags", "100%", "%s", "größe", 'a"b', ""]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(_VALUES, st.booleans())
def test_both_readers_tell_what_was_written(value: Value, large: bool) -> None:
    data = document(value, large=large)
    text = jsonb.json_text(data)
    assert json.loads(text.encode("latin-1")) == value
    assert fast_json.json_text(data) == text


def test_the_same_keys_in_other_places_are_other_keys() -> None:
    """What is remembered of an object's keys is told by its table and by the bytes they name."""
    plain = document({"a": 1, "bc": "x"})
    assert fast_json.json_text(plain) == '{"a":1,"bc":"x"}'
    # as long as the first one, with the same bytes cut elsewhere
    cut = document({"ab": 1, "c": "x"}).replace(b"cab", b"abc")
    assert fast_json.json_text(cut) == jsonb.json_text(cut) == '{"a":"x","bc":1}'
    # the same table, other bytes
    other = document({"d": 1, "ef": "x"})
    assert fast_json.json_text(other) == '{"d":1,"ef":"x"}'


def test_more_kinds_of_objects_than_are_remembered() -> None:
    for number in [*range(30_000), *range(10)]:
        value: Value = {f"k{number}": number, "x" * (number % 300): True}
        data = document(value)
        assert json.loads(fast_json.json_text(data)) == value


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_document_that_is_cut_off_is_an_error(cut: int) -> None:
    data = document({"tags": ["a", "b"], "color": "green", "weight": 0.5})
    with pytest.raises((ValueError, IndexError, struct.error)):
        fast_json.json_text(data[:cut])


def test_a_document_without_end_is_an_error() -> None:
    inside_itself = b"\x02" + struct.pack("<HH", 1, 7) + b"\x02" + struct.pack("<H", 0)
    for reader in (jsonb, fast_json):
        with pytest.raises(ValueError, match="too deep"):
            reader.json_text(inside_itself)


def test_no_bytes_are_the_json_null() -> None:
    assert fast_json.json_text(b"") == "null"
