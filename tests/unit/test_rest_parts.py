"""What a REST source makes of answers and keeps of them, without any I/O."""

from __future__ import annotations

import io
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.errors import ConfigError, GapError, RetryableError
from connectors.rest import names
from connectors.rest.boundary import boundary
from connectors.rest.columns import Columns
from connectors.rest.compare import Comparison, Entry
from connectors.rest.expressions import Document
from connectors.rest.names import PollName
from connectors.rest.outcome import VERSION, Found, Head, Outcome, position, split_position, write
from connectors.rest.records import (
    BadRecordError,
    Item,
    Records,
    later,
    order_of,
)
from connectors.rest.spec import ChangedSinceSpec, RestSourceSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

URL = "https://api.example.org/items"


def spec(**options: object) -> RestSourceSpec:
    return RestSourceSpec.model_validate({"type": "rest", "url": URL, "key": ["id"], **options})


def items(body: bytes, **settings: object) -> list[Item]:
    records = Records(spec(**settings))
    return [records.item(record) for record in records.of(Document(body))]


def only(body: bytes, **settings: object) -> Item:
    (item,) = items(body, **settings)
    return item


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "http://api.example.org"}, "allow_http"),
        ({"url": "https://u:p@api.example.org"}, "name the user in `auth`"),
        ({"url": "ftp://x"}, "https://host/path"),
        ({"records": "a..b"}, "JMESPath"),
        ({"cron": "every day"}, "five fields"),
        ({"cron": "* * * * *", "interval": "1s"}, "either interval or cron"),
        ({"mode": "incremental"}, "belong together"),
        ({"body": {}}, "method: POST"),
        ({"headers": {"a b": "x"}}, "no name of a header"),
        ({"headers": {"host": "x"}}, "by the source itself"),
        ({"headers": {"a": "s3cret\n"}}, "visible ASCII"),
        ({"max_deletions": "half"}, "a share such as 50%"),
        ({"auth": {"type": "api_key", "key": "k"}}, "either `header` or `query`"),
        ({"table": "a.b.c"}, "schema.name"),
        *(
            (
                {
                    "mode": "incremental",
                    "cursor": {"field": "at", "param": "since", "format": pattern},
                },
                "that tells a moment",
            )
            for pattern in ("%H:%M", "%Y-%j %", "yesterday", "%m-%d")
        ),
        ({"pagination": {"type": "cursor", "path": "a[", "param": "c"}}, "JMESPath"),
    ],
)
def test_bad_settings_are_told_in_one_line(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    (problem,) = caught.value.errors()
    assert told in problem["msg"]
    assert "s3cret" not in problem["msg"]


def test_secrets_are_not_shown() -> None:
    shown = repr(
        spec(
            url=f"{URL}?k=s3cret",
            query={"q": "s3cret"},
            headers={"h": "s3cret"},
            method="POST",
            body={"b": "s3cret"},
            auth={"type": "bearer", "token": "s3cret"},
        )
    )
    assert "s3cret" not in shown


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
            assert sorted(comparison.deleted()) == sorted(f'{{"id":{number}}}' for number in gone)
            assert comparison.missing == len(gone)
            comparison.settle(deletions=True)
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
        comparison.settle(deletions=True)
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
