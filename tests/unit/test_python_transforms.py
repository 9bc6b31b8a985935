"""Transforms that call a function of the user's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from connectors.contracts.changes import Change
from connectors.errors import ConfigError
from dataflows.transforms.spec import Transforms, make
from tests.unit.changes import USERS, change, columns, row
from tests.unit.transforming import ALLOWED, failure, one, python, through

if TYPE_CHECKING:
    pass


def test_a_function_changes_drops_and_splits_changes() -> None:
    made = one(change(), python("shout", n="integer"))
    assert row(made)["email"] == "ADA@EXAMPLE.ORG"
    assert b'"amount":"12.50"' in made.envelope
    assert b'"doc":{"a":{"b":1.10},"l":[1, 2]}' in made.envelope
    assert columns(made)["n"] == "bigint"
    assert through(change(after='{"id":1,"email":"nobody"}'), python("shout", n="integer")) == []
    split = through(change(), python("halves"))
    assert [made.key for made in split] == ['{"id":1}', '{"id":2}']
    assert [row(made)["id"] for made in split] == [1, 2]


def test_a_function_may_change_the_operation() -> None:
    shape = USERS.__class__("shop", "public", "users", USERS.columns[:1], ("id",))
    made = one(change("d", before='{"id":8}', table=shape), python("soft"))
    assert isinstance(made, Change)
    assert made.op == json.loads(made.envelope)["op"] == "u"


def test_a_list_that_was_changed_in_place_is_not_lost() -> None:
    assert row(one(change(), python("grows")))["doc"]["l"] == [1, 2, 3]


def test_a_value_that_was_set_in_place_is_not_lost() -> None:
    assert row(one(change(), python("blanks")))["email"] == "-"


def test_a_function_does_not_see_what_the_log_did_not_carry() -> None:
    was = change("u", unavailable=("note",))
    made = one(was, python("shout", n="integer"))
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
    found = failure(change(), python(name))
    assert found.code == code
    assert "ada" not in found.message


def test_only_functions_that_the_configuration_allows_are_imported() -> None:
    specs = TypeAdapter[Any](Transforms).validate_python([{"python": "os.path:join"}])
    with pytest.raises(ConfigError) as caught:
        make(specs, ALLOWED, "pipelines.users.transform")
    assert caught.value.code == "config.python_not_allowed"
    assert caught.value.where == "pipelines.users.transform.0.python"
    for reference in ("os.path:nothing", "no.such.module:f"):
        specs = TypeAdapter[Any](Transforms).validate_python([{"python": reference}])
        with pytest.raises(ConfigError) as caught:
            make(specs, ["*"], "pipelines.users.transform")
        assert caught.value.code == "config.python_not_found"
