"""What the API's messages cannot hold, the forms that they have, and where errors stand in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError
from control.pb.cdc.v1 import config_pb2
from control.specs.fields import field_path
from control.specs.reading import to_tree
from control.specs.writing import to_message

if TYPE_CHECKING:
    from google.protobuf.message import Message


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ({"type": "postgres", "create": "${X}"}, "s.x.create"),
        ({"type": "oracle"}, "s.x.type"),
        ({"type": "mysql", "server_id": "one"}, "s.x.server_id"),
    ],
)
def test_what_a_message_cannot_hold_is_refused_with_its_place(entry: object, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_message(entry, config_pb2.Source, "s.x")
    assert caught.value.where == where


def _webhook(**settings: object) -> dict[str, object]:
    return {"type": "webhook", "verify": "none", **settings}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ({"verify": "none"}, {"verify": {"none": True}}),
        ({"map": {"table": "t", "op": "d", "key": []}}, None),
        ({"map": {"table": {"expression": "body.t"}, "key": {"b": "body.id", "a": "c"}}}, None),
        (
            {
                "map": {
                    "key": ["a", "b"],
                    "op": {"expression": "e", "values": {"x": "skip"}, "default": "u"},
                }
            },
            None,
        ),
    ],
)
def test_a_setting_keeps_the_form_in_which_it_was_written(
    written: dict[str, object], shown: dict[str, object] | None
) -> None:
    tree = to_tree(to_message(_webhook(**written), config_pb2.Source, "sources.x"))
    expected = _webhook(**{"verify": {"none": True}, **(shown or written)})
    assert tree == expected
    # The order of a key's columns counts.
    assert list(tree.get("map", {}).get("key", [])) == list(written.get("map", {}).get("key", []))  # type: ignore[attr-defined]


def test_a_rest_source_comes_back_as_it_was_written() -> None:
    tree = {
        "type": "rest",
        "url": "${URL}",
        "method": "POST",
        "query": {"per_page": "500"},
        "body": {"filter": {"states": ["open", 1, 2.5, None, True]}},
        "auth": {"type": "api_key", "key": "${KEY}", "header": "x-key"},
        "key": ["id"],
        "columns": {"at": "timestamp", "id": "uuid"},
        "pagination": {"type": "page", "start": 0, "place": "body"},
        "max_pages": 7,
        "mode": "incremental",
        "cursor": {"field": "at", "param": "since", "initial": "7"},
    }
    assert to_tree(to_message(tree, config_pb2.Source, "sources.x")) == tree
    shown = to_message(tree | {"max_deletions": "20%"}, config_pb2.Source, "sources.x")
    assert shown.rest.max_deletions == 0.2
    assert shown.rest.method == config_pb2.HTTP_METHOD_POST


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (config_pb2.RequestMap(table=config_pb2.RequestTable()), "table"),
        (config_pb2.RequestMap(key=config_pb2.RequestKey()), "key"),
        (
            config_pb2.RequestMap(
                key=config_pb2.RequestKey(
                    expressions=config_pb2.Expressions(
                        items=[config_pb2.NamedExpression(name="a")] * 2
                    )
                )
            ),
            "key.expressions.items[1].name",
        ),
    ],
)
def test_a_form_without_a_value_or_with_two_is_refused(message: Message, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_tree(message)
    assert caught.value.where == place


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        (_webhook(map={"table": ["a"]}), "s.x.map.table"),
        (_webhook(map={"op": "x"}), "s.x.map.op"),
        (_webhook(map={"op": {"expression": "e", "values": {"a": "x"}}}), "s.x.map.op.values.a"),
        (_webhook(verify="all"), "s.x.verify.all"),
        ({"type": "rest", "auth": {"type": "digest"}}, "s.x.auth.type"),
        ({"type": "rest", "auth": {"type": "basic", "token": "${X}"}}, "s.x.auth.token"),
        ({"type": "rest", "body": {"id": 2**60}}, "s.x.body.id"),
    ],
)
def test_a_form_or_a_type_that_is_unknown_is_refused_with_its_place(
    entry: object, where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        to_message(entry, config_pb2.Source, "s.x")
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("type_", "path", "expected"),
    [
        ("rest", "auth.oauth2.token_url", "rest.auth.oauth2.token_url"),
        ("rest", "auth.client_secret", "rest.auth.oauth2.client_secret"),
        ("rest", "pagination.rel", "rest.pagination.link.rel"),
        ("rest", "pagination.param", "rest.pagination.param"),
        ("rest", "query.token", "rest.query.token"),
        ("webhook", "map.table.mapping.expression", "webhook.map.table.found.expression"),
        ("webhook", "map.key.0", "webhook.map.key[0]"),
        ("webhook", "verify.standard.1", "webhook.verify.standard[1]"),
    ],
)
def test_an_error_is_placed_in_the_message(type_: str, path: str, expected: str) -> None:
    assert field_path(config_pb2.Source, type_, path.split(".")) == expected
