"""The Elasticsearch sink's parts without a server: names, plans, answers, settings."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.contracts.changes import Column, Delivered, TableSchema
from connectors.elasticsearch.bulk import BULK_DOCUMENTS, body, cut, judge
from connectors.elasticsearch.mapping import properties
from connectors.elasticsearch.names import Identity, index_name
from connectors.elasticsearch.plan import Document, Planner, Truncate, Write
from connectors.elasticsearch.spec import SinkSpec
from connectors.errors import GapError, PermanentError

SUBJECT = "CDC.shop.db.items.0"


def table(name: str = "items", key: tuple[str, ...] = ("id",)) -> TableSchema:
    columns = (Column("id", "bigint", "number"), Column("a", "text"))
    return TableSchema("shop", "public", name, columns, key)


def spec(**settings: object) -> SinkSpec:
    given = {"type": "elasticsearch", "url": "http://127.0.0.1:9200", **settings}
    return SinkSpec.model_validate(given)


def change(sequence: int, op: str, key: int, **row: object) -> Delivered:
    envelope = {
        "op": op,
        "before": row.pop("before", None),
        "after": None if op == "d" else {"id": key, **row},
        "ts_ms": 7,
    }
    missing = tuple(name for name, value in row.items() if value == "?")
    return Delivered(
        sequence, SUBJECT, "", f'{{"id":{key}}}', table(), "", True,
        msgspec.json.encode(envelope), missing,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("template", "topic", "name", "expected"),
    [
        ("{topic}", "db.Users", "Users", "db.users"),
        ("{schema}-{table}", "db.x", "My Table?", "public-my_table_"),
        ("{topic}", "db.a%2Eb%2A", "x", "db.a.b_"),
        ("{table}", "db.x", "_x", "t_x"),
        ("{table}", "db.x", "..", "t.."),
    ],
)
def test_index_names_are_made_legal(template: str, topic: str, name: str, expected: str) -> None:
    assert index_name(template, topic, table(name)) == expected


def test_long_index_names_stay_apart() -> None:
    one, two = (index_name("{table}", "", table("ä" * 200 + end)) for end in "ab")
    assert one != two
    assert max(len(one.encode()), len(two.encode())) <= 255


@given(st.lists(st.tuples(st.text(), st.integers()), min_size=2, max_size=2, unique=True))
def test_different_keys_have_different_ids_of_legal_length(keys: list[tuple[str, int]]) -> None:
    for names in (("s",), ("s", "n")):
        identity = Identity(table(key=names), "db.items", "{key}")
        rows = [{"s": s, "n": n} for s, n in keys]
        ids = [identity.of(msgspec.Raw(msgspec.json.encode(row))) for row in rows]
        same = len({tuple(row[name] for name in names) for row in rows}) == 1
        assert (ids[0] == ids[1]) is same
        assert all(0 < len(id_.encode("utf-8", "surrogatepass")) <= 512 for id_ in ids)


def test_a_key_and_its_row_have_the_same_id() -> None:
    identity = Identity(table(key=("s", "n")), "db.items", "{table}/{key}")
    in_key = '{"s":"\\u00e4","n":1.50}'
    in_row = '{"x":0,"n":1.50,"s":"ä"}'
    assert identity.of(in_key) == identity.of(in_row) == 'items/["\\u00e4",1.50]'


def test_of_one_document_the_last_state_is_sent() -> None:
    log = [
        change(1, "c", 1, a="x"),
        change(2, "c", 2, a="x"),
        change(3, "u", 1, a="y"),
        change(4, "d", 2),
        change(5, "c", 2, a="z"),
        change(6, "d", 1),
    ]
    (step,) = Planner(spec(), "CDC_shop").plan(log, 2)
    assert isinstance(step, Write)
    found = [(d.id, d.version - (2 << 48), d.source is None) for d in step.documents]
    assert found == [("2", 5, False), ("1", 6, True)]


def test_what_lacks_values_waits_only_where_it_must() -> None:
    log = [
        change(1, "u", 1, a="?"),
        change(2, "u", 2, a="x", before={"id": 3}),
        change(3, "u", 5, a="?", before={"id": 4}),
        change(4, "t", 0),
        change(5, "u", 6, a="?"),
    ]
    first, moved, rest, truncate, last = Planner(spec(), "CDC_shop").plan(log, 0)
    assert isinstance(first, Write)
    assert [(d.id, d.origin) for d in first.documents if d.missing] == [("1", "1")]
    assert {d.id for d in first.documents if d.source is None} == {"3"}
    assert isinstance(moved, Write)
    assert [(d.id, d.origin, d.missing) for d in moved.documents] == [("5", "4", ("a",))]
    assert isinstance(rest, Write)
    assert [(d.id, d.source) for d in rest.documents] == [("4", None)]
    assert truncate == Truncate("db.items", 4, 4)
    assert isinstance(last, Write)


def test_rows_without_a_key_that_come_of_one_change_stay_apart() -> None:
    keyless = [change(n, "c", 1, a="x")._replace(key=None) for n in (1, 2, 2, 2, 3)]
    (step,) = Planner(spec(), "CDC_shop").plan(keyless, 0)
    assert isinstance(step, Write)
    ids = [d.id.removeprefix("CDC_shop:") for d in step.documents]
    assert ids == ["1", "2", "2.1", "2.2", "3"]


def test_by_time_a_change_must_tell_its_time() -> None:
    timeless = change(4, "c", 1)._replace(envelope=b'{"before":null,"after":{"id":1},"op":"c"}')
    with pytest.raises(PermanentError) as caught:
        Planner(spec(version="time"), "CDC_shop").plan([timeless], 0)
    assert caught.value.code == "elasticsearch.no_time"
    assert caught.value.sequence == 4


def documents(count: int) -> list[Document]:
    return [Document("i", str(n), n + 1, n + 1, "public.items", b"{}") for n in range(count)]


def test_an_answer_is_read_item_by_item() -> None:
    sent = documents(6)
    sent[1] = sent[1]._replace(source=None)
    errors = [
        None,
        None,
        ("version_conflict_engine_exception", "[2]: current version [9] is higher", 409),
        ("es_rejected_execution_exception", "the queue is full", 429),
        ("document_parsing_exception", "failed [a] in document with id '4'. Preview of …", 400),
        ("index_closed_exception", "closed", 400),
    ]
    items = [
        {"index": {"status": 200 + 204 * (n == 1)}}
        if error is None
        else {"index": {"status": error[2], "error": {"type": error[0], "reason": error[1]}}}
        for n, error in enumerate(errors)
    ]
    verdict = judge(sent, {"errors": True, "items": items}, 0)
    assert [d.id for d in verdict.again] == ["3", "5"]
    assert "queue is full" in verdict.reason
    assert list(verdict.refused) == [5]
    assert "id '4'" not in str(verdict.refused[5])


def test_a_document_of_a_later_life_is_a_gap() -> None:
    told = f"[0]: version conflict, current version [{(2 << 48) + 1}] is higher"
    error = {"type": "version_conflict_engine_exception", "reason": told}
    answer = {"errors": True, "items": [{"index": {"status": 409, "error": error}}]}
    with pytest.raises(GapError):
        judge(documents(1), answer, 1)
    assert not judge(documents(1), answer, 2).refused
    assert not judge(documents(1), answer, None).refused


def test_an_answer_that_is_cut_short_is_asked_for_again() -> None:
    sent = documents(2)
    assert judge(sent, {"errors": True, "items": []}, 0).again == sent


def test_a_bulk_keeps_its_lines() -> None:
    sent = documents(2)
    sent[0] = sent[0]._replace(source=b'{"j": {\r\n"a": "\\n"}}', id='a"\n')
    sent[1] = sent[1]._replace(source=None)
    lines = body(sent, timed=False).split(b"\n")
    assert [msgspec.json.decode(line) for line in lines[:3]] == [
        {"index": {"_index": "i", "_id": 'a"\n', "version": 1, "version_type": "external"}},
        {"j": {"a": "\n"}},
        {"delete": {"_index": "i", "_id": "1", "version": 2, "version_type": "external"}},
    ]
    assert lines[3:] == [b""]


def test_bulks_are_cut_by_count_and_by_size() -> None:
    assert [len(part) for part in cut(documents(BULK_DOCUMENTS + 1))] == [BULK_DOCUMENTS, 1]
    wide = [document._replace(source=b"x" * 3_000_000) for document in documents(3)]
    assert [len(part) for part in cut(wide)] == [1, 1, 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "127.0.0.1:9200"},
        {"url": "http://user:secret@127.0.0.1:9200"},
        {"index": "{nothing}"},
        {"index": "{topic!r}"},
        {"id": "{table}"},
        {"user": "waxtap"},
        {"user": "waxtap", "password": "x", "api_key": "y"},
        {"ca": "ca.pem"},
        {"parallelism": 0},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec(**settings)


def test_a_whole_number_of_an_api_is_no_short_one() -> None:
    columns = (
        Column("id", "integer", "number"),
        Column("name", "string"),
        Column("at", "timestamp"),
        Column("sum", "decimal"),
    )
    kinds = {
        dialect: properties(TableSchema("s", "public", "t", columns, ("id",), dialect), {})
        for dialect in ("json", "postgresql")
    }
    assert kinds["json"]["id"] == {"type": "long", "ignore_malformed": True}
    assert kinds["postgresql"]["id"] == {"type": "integer", "ignore_malformed": True}
    types = [str(field).split("'")[3] for field in kinds["json"].values()]
    assert types == ["long", "text", "date", "double"]
