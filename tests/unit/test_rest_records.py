"""What a REST source makes of answers, without any I/O."""

from __future__ import annotations

from datetime import timedelta

import pytest

from connectors.errors import ConfigError, RetryableError
from connectors.rest.boundary import boundary
from connectors.rest.columns import Columns
from connectors.rest.expressions import Document
from connectors.rest.records import BadRecordError, Records, later, order_of
from connectors.rest.spec import ChangedSinceSpec
from tests.unit.rest_records import items, only, spec


@pytest.mark.parametrize("path", ["data.items", "data.items[*]", "data.items[?id]"])
def test_records_are_found_by_a_path_or_an_expression(path: str) -> None:
    body = b'{"data": {"items": [{"id": 1, "price": 1.50}, {"id": 2, "price": 1e400}]}}'
    assert [item.text for item in items(body, records=path)] == [
        b'{"id":1,"price":1.50}',
        b'{"id":2,"price":1E+400}',
    ]


def test_an_answer_without_list_is_never_taken_for_an_empty_one() -> None:
    records = Records(spec(records="data"))
    for body in (b"{}", b'{"data": null}', b'{"data": {}}', b"[]", b'"x"', b"null"):
        with pytest.raises(ConfigError) as caught:
            records.of(Document(body))
        assert caught.value.code == "rest.no_records"
    assert records.of(Document(b'{"data": []}')) == []
    with pytest.raises(RetryableError):
        Document(bytearray(b'{"data": [1, 2'))


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id": 1, "name": "\xff"}]',
        b'[{"id": 1, "\xff": 1}]',
        b'[{"id": 1, "a": ' + b"[" * 5000 + b"]" * 5000 + b"}]",
        b'[{"id": 1, "price": 1e99999999999999999999}]',
        b'[{"id": 1, "n": ' + b"1" * 5000 + b"}]",
    ],
    ids=["text", "member", "nested", "number", "digits"],
)
@pytest.mark.parametrize("path", ["@", "[*]"])
def test_an_answer_that_cannot_be_decoded_is_invalid(body: bytes, path: str) -> None:
    with pytest.raises(RetryableError) as caught:
        items(body, records=path)
    assert caught.value.code == "rest.invalid_json"


@pytest.mark.parametrize("path", ["[?id > `1`]", "max_by(@, &id) | [@]", "[::0]"])
def test_an_expression_that_values_do_not_allow_is_told(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        items(b'[{"id": 1}, {"id": "x"}]', records=path)
    assert caught.value.code == "rest.no_records"


def test_a_key_is_ascii_in_the_configured_order() -> None:
    item = only('[{"b": "ü", "a": 1, "c": 0}]'.encode(), key=["a", "b"])
    assert item.key == '{"a":1,"b":"\\u00fc"}'


@pytest.mark.parametrize("record", ["1", "null", "[]", "{}", '{"id": null}', '{"id": [1]}'])
def test_a_record_without_key_is_told(record: str) -> None:
    with pytest.raises(BadRecordError):
        items(f"[{record}]".encode())


def test_a_hash_knows_every_digit_but_no_order_of_members() -> None:
    same = only(b'[{"id": 1, "a": {"x": 1, "y": [1, 2]}}]')
    assert only(b'[{"a": {"y": [1,2], "x": 1}, "id": 1}]').hash == same.hash
    differing = [
        b'[{"id": 1, "a": {"x": 1, "y": [2, 1]}}]',
        b'[{"id": 1, "a": {"x": 1.0, "y": [1, 2]}}]',
        b'[{"id": 1, "a": {"x": "1", "y": [1, 2]}}]',
        b'[{"id": 1, "a": {"x": 1, "y": [1, 2]}, "b": null}]',
        b'[{"id": 1, "a": {"x": 100000000000000000000000000001, "y": [1, 2]}}]',
        b'[{"id": 1, "a": {"x": 100000000000000000000000000002, "y": [1, 2]}}]',
    ]
    assert len({same.hash, *(only(body).hash for body in differing)}) == len(differing) + 1


def test_cursors_sort_by_what_they_mean() -> None:
    cursor = ChangedSinceSpec(field="at", param="since", overlap=timedelta(seconds=1))
    noon = order_of(cursor, "2026-01-01T12:00:00Z")
    assert order_of(cursor, "2026-01-01T13:00:00+01:00") == noon
    assert order_of(cursor, "2026-01-01 12:00:00") == noon
    assert order_of(cursor, 1767268800) == noon
    assert order_of(cursor, 1767268800000) == noon
    assert isinstance(noon, int)
    assert later(noon + 1, noon)
    assert not later(noon, noon)
    assert later(noon, None)
    with pytest.raises(ValueError, match="Invalid isoformat"):
        order_of(cursor, "yesterday")


NOON = 1767268800_000_000


@pytest.mark.parametrize(
    ("format_", "record", "text", "order"),
    [
        ("unix", "2026-01-01T12:00:01.5Z", "1767268800", NOON),
        ("unix_ms", "2026-01-01T12:00:01.0015Z", "1767268800001", NOON + 1000),
        ("%d.%m.%Y", "2026-01-01T12:00:01Z", "01.01.2026", NOON - 43_200_000_000),
        ("%Y-%m-%dT%H:%M:%S%z", "2026-01-01T12:00:01.5Z", "2026-01-01T12:00:00+0000", NOON),
        ("", "2026-01-01T12:00:01Z", "2026-01-01T12:00:00Z", NOON),
        ("", "2026-01-01T12:00:01.250Z", "2026-01-01T12:00:00.250Z", NOON + 250_000),
        ("", "2026-01-01T12:00:01.25", "2026-01-01T12:00:00.250", NOON + 250_000),
        ("", "2026-01-01 13:00:01.000001+01:00", "2026-01-01 13:00:00.000001+01:00", NOON + 1),
        ("", "2026-01-02", "2026-01-01", NOON - 43_200_000_000),
        ("", 1767268801, "1767268800", NOON),
        ("", 1767268801001, "1767268800001", NOON + 1000),
        ("", 20260102, "20260101", 20260101_000_000),
        ("", "20260102", "20260101", NOON - 43_200_000_000),
    ],
)
def test_what_is_asked_for_has_the_records_form_and_is_known(
    format_: str, record: str | int, text: str, order: int
) -> None:
    cursor = ChangedSinceSpec(
        field="at", param="since", overlap=timedelta(seconds=1), format=format_
    )
    assert boundary(cursor, str(record), order_of(cursor, record)) == (text, order)


def test_a_cursor_out_of_range_is_a_bad_record() -> None:
    timestamp = {"mode": "incremental", "cursor": {"field": "at", "param": "since"}}
    integer = {**timestamp, "cursor": {"field": "at", "param": "since", "type": "integer"}}
    for settings_, value in [
        (integer, b"9223372036854775808"),
        (timestamp, b"99999999999999999"),
        (timestamp, b"1e30"),
        (timestamp, b"1e999999"),
        (timestamp, b'"9999-12-31T23:59:59-05:00"'),
    ]:
        with pytest.raises(BadRecordError):
            items(b'[{"id": 1, "at": ' + value + b"}]", **settings_)
    assert only(b'[{"id": 1, "at": 9223372036854775807}]', **integer).order == 2**63 - 1


def test_no_date_is_too_early_to_be_asked_for() -> None:
    early = "0001-01-01T00:00:00Z"
    back = ChangedSinceSpec(field="at", param="since", overlap=timedelta(days=1))
    assert boundary(back, early, order_of(back, early)).text == early
    named = back.model_copy(update={"format": "%Y-%m-%d"})
    assert boundary(named, early, order_of(named, early)).order is None


def test_columns_are_only_ever_widened() -> None:
    columns = Columns({"at": "timestamp"})
    columns.see({"id": 1, "n": None, "at": "2026-01-01", "tags": [1]})
    columns.see({"id": 2**63, "n": 1.5, "flag": True, "tags": "x"})
    columns.see({"n": 1, "flag": "yes"})
    again = Columns({"at": "timestamp"}, columns.known)
    again.see({"id": 1})
    table = again.table("shop", "public", "items", ("id",))
    assert [(column.name, column.type, column.json) for column in table.columns] == [
        ("id", "number", "number"),
        ("at", "timestamp", "string"),
        ("tags", "json", "json"),
        ("n", "number", "number"),
        ("flag", "json", "json"),
    ]
    assert table.dialect == "json"
