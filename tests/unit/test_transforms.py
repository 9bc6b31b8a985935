from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from connectors.contracts.changes import (
    Change,
    Column,
    Delivered,
    Failure,
    TableSchema,
    UnwrappedChange,
)
from connectors.errors import ConfigError
from connectors.wrapping import wrapped
from dataflows.failing import StepError
from dataflows.filters import Filter
from dataflows.steps import Steps
from dataflows.transforms.change_view import ChangeView
from dataflows.transforms.record import key_of_row, row_of_key
from dataflows.transforms.spec import Transforms, make
from tests.unit.changes import ROW, USERS, change, columns, delivered, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dataflows.steps import OnError

_ALLOWED = ("tests.unit.test_transforms:*",)


def steps(*written: Any, on_error: OnError = "dead_letter") -> Steps:
    """Transforms, as a configuration writes them."""
    specs = TypeAdapter[Any](Transforms).validate_python(written)
    return Steps("users", None, make(specs, _ALLOWED, "pipelines.users.transform"), on_error)


def through(given: Change | Delivered, *written: Any) -> list[Change | Delivered]:
    return [made.change for made in steps(*written).apply(given)]


def one(given: Change | Delivered, *written: Any) -> Change | Delivered:
    [made] = through(given, *written)
    assert not made.failed
    return made


def failure(given: Change | Delivered, *written: Any) -> Failure:
    [made] = through(given, *written)
    assert made._replace(failed="", key=given.key) == given, "it is not as it came"
    return Failure.decode(made.failed)


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
    assert msgspec.json.decode(made.envelope, type=_Rows).after["note"] == msgspec.Raw(
        expected.encode()
    )


class _Rows(msgspec.Struct):
    after: dict[str, msgspec.Raw]


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


def test_unwrap_makes_the_row_the_message_and_delivery_makes_an_envelope_again() -> None:
    made = one(change("u"), "unwrap")
    assert isinstance(made, UnwrappedChange)
    assert made.envelope == ROW.encode()
    assert json.loads(wrapped(made.op, made.key, made.envelope)) == {
        "before": None,
        "after": json.loads(ROW),
        "op": "u",
    }
    gone = one(change("d", before='{"id":8}'), "unwrap")
    assert (gone.envelope, gone.key) == (b"null", '{"id":8}')
    again = one(delivered(change("d", before='{"id":8}')), {"unwrap": None})
    assert again.envelope == b'{"before":{"id":8},"after":null,"op":"d"}'


def test_unwrap_makes_two_messages_of_a_change_of_key() -> None:
    gone, made = through(change("u", before='{"id":7}'), "unwrap")
    assert isinstance(gone, UnwrappedChange)
    assert isinstance(made, UnwrappedChange)
    assert (gone.op, gone.key, gone.envelope) == ("d", '{"id":7}', b"null")
    assert (made.op, made.key, made.envelope) == ("c", '{"id":8}', ROW.encode())
    found = failure(change("u", before='{"id":7}', unavailable=("note",)), "unwrap")
    assert found.code == "transform.row_incomplete"


OUTBOX = TableSchema(
    "shop",
    "public",
    "outbox",
    (
        *(Column(name, "text") for name in ("id", "aggregatetype", "aggregateid", "type")),
        Column("payload", "jsonb", "json"),
    ),
    ("id",),
)
_EVENT = '{"id":"1","aggregatetype":"Order","aggregateid":"42","type":"Paid","payload":{"a":1.0}}'


def test_an_event_is_routed_by_what_it_belongs_to() -> None:
    [made] = steps("outbox").apply(change(table=OUTBOX, after=_EVENT, key='{"id":"1"}'))
    assert made.record is not None
    assert made.record.route == "Order"
    assert made.change.key == '{"aggregateid":"42"}'
    assert made.change.table is not None
    assert made.change.table.key == ("aggregateid",)
    assert _EVENT.encode() in made.change.envelope


def test_only_inserts_are_events() -> None:
    assert through(change("d", table=OUTBOX, before='{"id":"1"}'), "outbox") == []
    assert through(change("t", table=OUTBOX, key=None), "outbox") == []
    assert failure(change("u", table=OUTBOX, after=_EVENT), "outbox").code == (
        "transform.outbox_update"
    )
    assert failure(change(), "outbox").code == "transform.no_outbox"
    lost = _EVENT.replace('"Order"', "null")
    assert failure(change(table=OUTBOX, after=lost), "outbox").code == "transform.outbox_null"


def shout(given: ChangeView) -> ChangeView | None:
    if given.after is None or given.after["email"] == "nobody":
        return None
    return replace(given, after=given.after | {"email": given.after["email"].upper(), "n": 1})


def halves(given: ChangeView) -> list[ChangeView]:
    assert given.after is not None
    return [replace(given, after=given.after | {"id": number}) for number in (1, 2)]


def hundreds(given: ChangeView) -> list[ChangeView]:
    return [given] * 101


def grows(given: ChangeView) -> ChangeView:
    assert given.after is not None
    given.after["doc"]["l"].append(3)
    return given


def soft(given: ChangeView) -> ChangeView:
    return replace(given, op="u", after={"id": 8}) if given.op == "d" else given


def forgets(given: ChangeView) -> ChangeView:
    return replace(given, after={"id": 8})


def adds(given: ChangeView) -> ChangeView:
    return replace(given, after={**(given.after or {}), "surprise": 1})


def fails(given: ChangeView) -> ChangeView:
    raise KeyError(given.after)


def wrong(_given: ChangeView) -> Any:
    return {"id": 1}


def number(_given: ChangeView) -> Any:
    return 5


def rowless(given: ChangeView) -> ChangeView:
    return replace(given, after=5)  # type: ignore[arg-type]


def endless(given: ChangeView) -> ChangeView:
    return replace(given, after=(given.after or {}) | {"id": 10**400})


def breaks_off(given: ChangeView) -> Iterator[ChangeView]:
    yield given
    raise ValueError(given.after)


def leaves(_given: ChangeView) -> None:
    raise SystemExit(0)


def blanks(given: ChangeView) -> ChangeView:
    assert given.after is not None
    given.after["email"] = "-"
    return given


def _python(name: str, **kinds: str) -> dict[str, Any]:
    return {"python": {"function": f"tests.unit.test_transforms:{name}", "columns": kinds}}


def test_a_function_changes_drops_and_splits_changes() -> None:
    made = one(change(), _python("shout", n="integer"))
    assert row(made)["email"] == "ADA@EXAMPLE.ORG"
    assert b'"amount":"12.50"' in made.envelope
    assert b'"doc":{"a":{"b":1.10},"l":[1, 2]}' in made.envelope
    assert columns(made)["n"] == "bigint"
    assert through(change(after='{"id":1,"email":"nobody"}'), _python("shout", n="integer")) == []
    split = through(change(), _python("halves"))
    assert [made.key for made in split] == ['{"id":1}', '{"id":2}']
    assert [row(made)["id"] for made in split] == [1, 2]


def test_a_function_may_change_the_operation() -> None:
    shape = USERS.__class__("shop", "public", "users", USERS.columns[:1], ("id",))
    made = one(change("d", before='{"id":8}', table=shape), _python("soft"))
    assert isinstance(made, Change)
    assert made.op == json.loads(made.envelope)["op"] == "u"


def test_a_list_that_was_changed_in_place_is_not_lost() -> None:
    assert row(one(change(), _python("grows")))["doc"]["l"] == [1, 2, 3]


def test_a_value_that_was_set_in_place_is_not_lost() -> None:
    assert row(one(change(), _python("blanks")))["email"] == "-"


def test_a_function_does_not_see_what_the_log_did_not_carry() -> None:
    was = change("u", unavailable=("note",))
    made = one(was, _python("shout", n="integer"))
    assert made.unavailable == ("note",)
    assert row(made)["note"] == "größe"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("forgets", "transform.column_missing"),
        ("adds", "transform.column_unknown"),
        ("fails", "transform.python_failed"),
        ("wrong", "transform.python_result"),
        ("number", "transform.python_result"),
        ("rowless", "transform.python_result"),
        ("endless", "transform.wrong_type"),
        ("breaks_off", "transform.python_failed"),
        ("leaves", "transform.python_failed"),
        ("hundreds", "step.too_many_changes"),
    ],
)
def test_what_a_function_does_wrong_is_told_without_the_rows_values(name: str, code: str) -> None:
    found = failure(change(), _python(name))
    assert found.code == code
    assert "ada" not in found.message


def test_only_functions_that_the_configuration_allows_are_imported() -> None:
    specs = TypeAdapter[Any](Transforms).validate_python([{"python": "os.path:join"}])
    with pytest.raises(ConfigError) as caught:
        make(specs, _ALLOWED, "pipelines.users.transform")
    assert caught.value.code == "config.python_not_allowed"
    assert caught.value.where == "pipelines.users.transform.0.python"
    for reference in ("os.path:nothing", "no.such.module:f"):
        specs = TypeAdapter[Any](Transforms).validate_python([{"python": reference}])
        with pytest.raises(ConfigError) as caught:
            make(specs, ["*"], "pipelines.users.transform")
        assert caught.value.code == "config.python_not_found"


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
    made = one(truncate, {"drop": ["note"]}, _python("shout", n="integer"))
    assert list(columns(made)) == ["id", "email", "amount", "active", "doc", "n"]
    message = Change("m", None, "1", None, "", False, b'{"op":"m"}')
    assert one(message, {"drop": ["note"]}, "unwrap") == message


@pytest.mark.parametrize("value", ["1e999", r'"\ud800"', "[" * 3000 + "]" * 3000])
@pytest.mark.parametrize(
    "written",
    [
        {"set": {"cel": {"x": "string(size(after.doc))"}}},
        {"python": {"function": "tests.unit.test_transforms:forgets"}},
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
    result = msgspec.json.decode(made.envelope, type=_Rows).after
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
