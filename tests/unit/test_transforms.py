"""What transforms make of a row's columns."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from connectors.contracts.changes import Column, TableSchema
from tests.unit.changes import ROW, change, columns, row
from tests.unit.transforming import Rows, failure, one

if TYPE_CHECKING:
    pass


def test_rename_takes_the_key_and_every_list_of_columns_along() -> None:
    was = change("u", before='{"id":7}', unavailable=("note",), json_nulls=("doc",))
    made = one(was, {"rename": {"fields": {"id": "user_id", "note": "remark", "doc": "paper"}}})
    assert list(row(made)) == ["user_id", "email", "amount", "active", "paper", "remark"]
    assert list(columns(made)) == list(row(made))
    assert row(made, "before") == {"user_id": 7}
    assert made.key == '{"user_id":8}'
    assert made.table is not None
    assert made.table.key == ("user_id",)
    assert (made.unavailable, made.json_nulls) == (("remark",), ("paper",))


def test_names_may_be_swapped_but_not_given_twice() -> None:
    made = one(change(), {"rename": {"fields": {"email": "note", "note": "email"}}})
    assert row(made)["note"] == "ada@example.org"
    assert failure(change(), {"rename": {"fields": {"email": "note"}}}).code == (
        "transform.column_exists"
    )


def test_drop_and_keep_leave_columns_out() -> None:
    was = change(unavailable=("note",), json_nulls=("doc",))
    made = one(was, {"drop": ["note", "doc", "nobody"]})
    assert list(row(made)) == list(columns(made)) == ["id", "email", "amount", "active"]
    assert (made.unavailable, made.json_nulls) == ((), ())
    made = one(was, {"keep": {"fields": ["note"]}})
    assert list(row(made)) == list(columns(made)) == ["id", "note"]
    assert (made.unavailable, made.json_nulls) == (("note",), ())


@pytest.mark.parametrize(
    "written",
    [
        {"drop": ["id"]},
        {"mask": {"fields": ["id"], "with": "redact"}},
        {"mask": {"fields": ["id"], "with": "last4"}},
        {"cast": {"fields": {"id": "number"}}},
        {"set": {"fields": {"id": 1}}},
        {"flatten": {"field": "id", "into": {"a": "string"}}},
    ],
)
def test_what_could_make_one_row_of_two_is_refused_for_the_key(written: Any) -> None:
    found = failure(change(), written)
    assert found.code == "transform.key_column"
    assert "id" in found.message
    assert "public.users" in found.message


def test_mask_hides_what_columns_say() -> None:
    mask = {"fields": ["email", "amount", "active", "doc"], "with": "sha256", "salt": "pepper"}
    made = one(change(json_nulls=("doc",)), {"mask": mask})
    digest = sha256(b"pepperada@example.org").hexdigest()
    assert row(made)["email"] == digest
    assert row(made)["amount"] == sha256(b"pepper12.50").hexdigest()
    assert row(made)["active"] == sha256(b"peppertrue").hexdigest()
    assert row(made)["doc"] == sha256(b'pepper{"a":{"b":1.10},"l":[1, 2]}').hexdigest()
    assert columns(made)["active"] == columns(made)["doc"] == "text"
    assert made.json_nulls == ()
    last4 = {"mask": {"fields": ["email", "note", "id2"], "with": "last4"}}
    assert row(one(change(), last4))["email"] == "****.org"
    assert row(one(change(), last4))["note"] == "****"
    assert row(one(change(), {"mask": {"fields": ["active"]}}))["active"] == "***"


def test_a_masked_null_stays_null_and_a_value_that_is_not_there_stays_away() -> None:
    was = change("u", after='{"id":8,"email":null,"note":"marker"}', unavailable=("note",))
    made = one(was, {"mask": {"fields": ["email", "note"], "with": "sha256", "salt": "s"}})
    assert row(made) == {"id": 8, "email": None, "note": "marker"}
    assert made.unavailable == ("note",)


def test_a_masked_key_is_the_same_in_the_row_and_in_the_key() -> None:
    mask = {"mask": {"fields": ["id"], "with": "sha256", "salt": "s"}}
    made = one(change("u", before='{"id":8}'), mask)
    assert made.key is not None
    assert json.loads(made.key)["id"] == row(made)["id"] == row(made, "before")["id"]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("12", "string", '"12"'),
        ("1.10", "string", '"1.10"'),
        ('{"a": 1}', "string", '"{\\"a\\": 1}"'),
        ('"1234567890123456789012"', "integer", "1234567890123456789012"),
        ("true", "integer", "1"),
        ('"1.10"', "number", "1.10"),
        ("1.10", "decimal", '"1.10"'),
        ('"t"', "boolean", "true"),
        ("0", "boolean", "false"),
        ('"{\\"a\\": 1.10}"', "json", '{"a": 1.10}'),
        ("null", "integer", "null"),
    ],
)
def test_a_cast_loses_no_digit(value: str, kind: str, expected: str) -> None:
    made = one(change(after=f'{{"id":8,"note":{value}}}'), {"cast": {"fields": {"note": kind}}})
    assert msgspec.json.decode(made.envelope, type=Rows).after["note"] == msgspec.Raw(
        expected.encode()
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ('"1.5"', "integer"),
        ('"007"', "integer"),
        ("1.0", "integer"),
        ('"NaN"', "number"),
        ("true", "number"),
        ('"yes"', "boolean"),
        ('"{"', "json"),
        ("[1]", "integer"),
    ],
)
def test_what_cannot_be_cast_is_an_error_that_names_the_column(value: str, kind: str) -> None:
    found = failure(
        change(after=f'{{"id":8,"note":{value}}}'), {"cast": {"fields": {"note": kind}}}
    )
    assert found.code == "transform.cannot_cast"
    assert "note" in found.message


def test_types_are_those_of_the_tables_dialect() -> None:
    kinds = ("string", "integer", "number", "decimal", "boolean", "json")
    names = {kind: kind for kind in kinds}
    for dialect, expected in (("postgresql", "double precision"), ("mariadb", "double")):
        shape = TableSchema(
            "shop", "s", "t", (Column("id", "int"), *(Column(kind, "x") for kind in kinds)),
            ("id",), dialect,
        )  # fmt: skip
        made = one(change(table=shape, after='{"id":8}'), {"cast": {"fields": names}})
        assert columns(made)["number"] == expected


def test_set_gives_constants_and_what_an_expression_says() -> None:
    written = {
        "set": {
            "fields": {"origin": "shop", "note": None, "level": 3},
            "cel": {"who": "after.email.upperAscii()", "old": "before.id + 1"},
            "types": {"who": "string", "old": "integer"},
        }
    }
    was = change("u", before='{"id":7,"who":"x","note":"secret"}', unavailable=("note",))
    made = one(was, written)
    assert row(made) | {"doc": 0} == json.loads(ROW) | {
        "doc": 0,
        "note": None,
        "origin": "shop",
        "level": 3,
        "who": "ADA@EXAMPLE.ORG",
        "old": 8,
    }
    assert list(columns(made)) == list(row(made))
    assert columns(made)["level"] == "bigint"
    assert made.unavailable == ()
    assert row(made, "before") == {"id": 7, "note": None}


def test_an_expression_sees_what_was_done_before() -> None:
    made = one(
        change(),
        {"rename": {"fields": {"email": "mail"}}},
        {"set": {"cel": {"both": "string(after.id) + after.mail"}}},
    )
    assert row(made)["both"] == "8ada@example.org"


def test_the_result_of_an_expression_must_be_of_its_type() -> None:
    written = {"set": {"cel": {"x": "after.email"}, "types": {"x": "integer"}}}
    assert failure(change(), written).code == "transform.wrong_type"


def test_flatten_takes_values_out_of_a_document() -> None:
    flatten = {"field": "doc", "into": {"a.b": "number", "l": "json", "x.y": "string"}}
    made = one(change(), {"flatten": flatten})
    assert b'"doc_a_b":1.10,"doc_l":[1, 2],"doc_x_y":null' in made.envelope
    assert list(columns(made)) == list(row(made))
    assert "doc" not in row(made)
    kept = one(change(), {"flatten": flatten | {"keep": True, "prefix": ""}})
    assert list(row(kept)) == [*json.loads(ROW), "a_b", "l", "x_y"]


def test_a_document_that_the_log_did_not_carry_makes_no_values() -> None:
    was = change("u", after='{"id":8,"doc":"marker"}', unavailable=("doc",))
    made = one(was, {"flatten": {"field": "doc", "into": {"a": "string", "b": "number"}}})
    assert row(made) == {"id": 8, "doc_a": "marker", "doc_b": "marker"}
    assert made.unavailable == ("doc_a", "doc_b")


def test_what_is_no_object_cannot_be_flattened() -> None:
    flatten = {"flatten": {"field": "doc", "into": {"a.b": "string"}}}
    assert failure(change(after='{"id":8,"doc":{"a":[]}}'), flatten).code == (
        "transform.not_an_object"
    )
