"""The API's messages say what the models of waxtap.yaml say, and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

import pytest
import yaml
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from connectors import registry
from connectors.errors import ConfigError
from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import config_pb2
from control.specs.document import plain
from control.specs.fields import (
    NETWORKS,
    configs,
    descriptor,
    field_path,
    is_config,
    is_form,
    items,
    key,
    of_map,
    pair,
    shape,
    word,
)
from control.specs.fields import settings as fields_of
from control.specs.kinds import KINDS, canonical
from control.specs.reading import to_tree
from control.specs.writing import NEVER_EMPTY, to_message
from dataflows.configuration.options import SinkOptions, SourceOptions, TopicSpec
from dataflows.configuration.pipeline_spec import PipelineSpec
from dataflows.spec import part

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

EXAMPLES = sorted(Path(__file__).parents[2].joinpath("examples").glob("*.yaml"))


def _models() -> dict[str, tuple[list[type[BaseModel]], Descriptor, set[str]]]:
    """What is to say the same: models, a message, and keys that only the models have."""
    source, sink = config_pb2.Source, config_pb2.Sink
    pairs: dict[str, tuple[list[type[BaseModel]], Descriptor, set[str]]] = {
        "source": ([SourceOptions], descriptor(source), set()),
        "sink": ([SinkOptions], descriptor(sink), set()),
        "pipeline": ([PipelineSpec], descriptor(config_pb2.Pipeline), set()),
        "topic": ([TopicSpec], descriptor(config_pb2.Topic), set()),
    }
    for kind in registry.source_types():
        pairs[f"source {kind}"] = ([registry.source_spec(kind)], _own(source, kind), {"type"})
    for kind in registry.sink_types():
        pairs[f"sink {kind}"] = ([registry.sink_spec(kind)], _own(sink, kind), {"type"})
    return pairs


def _own(resource: type[Message], kind: str) -> Descriptor:
    message = configs(resource)[kind].message_type
    assert message is not None
    return message


def test_every_connector_has_a_message_and_every_message_a_connector() -> None:
    assert set(configs(config_pb2.Source)) == set(registry.source_types())
    assert set(configs(config_pb2.Sink)) == set(registry.sink_types())


@pytest.mark.parametrize("name", _models())
def test_every_key_has_its_field_and_every_field_its_key(name: str) -> None:
    models, message, only_models = _models()[name]
    seen: set[str] = set()
    _compare(models, message, only_models, seen)


def _compare(
    models: list[type[BaseModel]], message: Descriptor, only_models: set[str], seen: set[str]
) -> None:
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    tagged = {field.name: field for field in message.fields if is_config(field)}
    if tagged and "metadata" not in message.fields_by_name:
        kinds = {get_args(model.model_fields["type"].annotation)[0]: model for model in models}
        assert kinds.keys() == tagged.keys(), message.full_name
        for kind, field in tagged.items():
            assert field.message_type is not None
            _compare([kinds[kind]], field.message_type, {"type"}, seen)
        return
    keys = {
        field.alias or name: field.annotation
        for model in models
        for name, field in model.model_fields.items()
    }
    ours = {"name", "metadata"} if "metadata" in message.fields_by_name else set()
    fields = {
        key(field): field
        for field in message.fields
        if field.name not in ours and not is_config(field) and field.name != NETWORKS
    }
    assert keys.keys() - only_models == fields.keys(), message.full_name
    for name, field in fields.items():
        _compare_values(keys[name], field, seen)


def _compare_values(annotation: object, field: FieldDescriptor, seen: set[str]) -> None:
    """What may stand at a key: words, nested settings, lists and maps of them."""
    inner = of_map(field) or field
    if inner.message_type is not None and is_form(inner.message_type):
        _compare_forms(annotation, inner.message_type, seen)
        return
    words, models, repeated = _within(annotation)
    if inner.enum_type is not None:
        known = {word(value) for value in inner.enum_type.values if value.number}
        assert known == words, field.full_name
    else:
        assert not words - {True}, field.full_name
    whole = field.message_type is not None and field.message_type.name == "Struct"
    assert (field.is_repeated or whole) == repeated, field.full_name
    if inner.message_type is not None and inner.message_type.full_name.startswith("cdc."):
        if inner.message_type.name != "Constant":
            assert models, field.full_name
            _compare(models, inner.message_type, set(), seen)
    else:
        assert not models, field.full_name


def _compare_forms(annotation: object, message: Descriptor, seen: set[str]) -> None:
    """The ways to write one setting."""
    ways: dict[type, object] = {}
    for each in get_args(annotation):
        _, models, repeated = _within(each)
        way = get_args(each)[0] if get_origin(each) is Annotated else each
        mapping = bool(models) or get_origin(way) is dict
        ways[dict if mapping else list if repeated else str] = way
    assert ways.keys() == {shape(field) for field in message.fields}
    for field in message.fields:
        way, inner = ways[shape(field)], items(field) or field
        if (second := pair(inner)) is not None:
            assert not second.is_repeated
            assert _within(get_args(way)[1]) == (set(), [], False)
        else:
            _compare_values(way, inner, seen)


def _within(annotation: object) -> tuple[set[object], list[type[BaseModel]], bool]:
    """Words, models, and whether it is a list or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return set(), [annotation], False
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return set(inner), [], False
    if origin is Annotated:
        return _within(inner[0])
    if origin in (Union, UnionType):
        parts = [_within(each) for each in inner]
        # `allow_private`: the list is a field of its own.
        repeated = any(part[2] for part in parts) and bool not in inner
        words = set().union(*(part[0] for part in parts))
        return words, [model for part in parts for model in part[1]], repeated
    if origin in (tuple, list, dict):
        words, models, _ = _within(inner[1] if origin is dict else inner[0])
        return words, models, True
    return set(), [], False


def test_a_list_that_may_be_empty_means_the_same_as_one_that_is_absent() -> None:
    """Or it is refused when it is turned into a message."""
    found = set()
    for models, message, _ in _models().values():
        fields = {key(field): field for field in message.fields}
        for model in models:
            for name, field in model.model_fields.items():
                shown = fields.get(field.alias or name)
                if shown is None or not shown.is_repeated or of_map(shown) is not None:
                    continue
                longer = any(getattr(each, "min_length", 0) for each in field.metadata)
                if field.default and not field.is_required() and not longer:
                    found.add(shown.full_name)
    assert found == NEVER_EMPTY
    with pytest.raises(ConfigError) as caught:
        to_message({"type": "postgres", "tables": []}, config_pb2.Source, "sources.shop")
    assert caught.value.where == "sources.shop.tables"


_text = st.text(st.characters(codec="ascii", exclude_characters="$"), min_size=1, max_size=8)
_structs = st.dictionaries(
    _text,
    st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | _text, st.lists),
    max_size=3,
)


def _messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    @st.composite
    def build(draw: Callable[[st.SearchStrategy[object]], object]) -> Message:
        message = kind()
        _draw(draw, message)
        return message

    return build()


def _draw(draw: Callable[[st.SearchStrategy[object]], object], message: Message) -> None:
    """Set some of the fields that hold settings."""
    if isinstance(message, Struct):
        message.update(draw(_structs))  # type: ignore[arg-type]
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        seconds = draw(st.integers(0, 4 * 10**9))
        message.seconds = seconds  # type: ignore[attr-defined]
        return
    required = {"cdc.v1.Constant", "cdc.v1.Transform"}
    chosen = {
        oneof.name: draw(st.sampled_from([field.name for field in oneof.fields]))
        for oneof in message.DESCRIPTOR.oneofs
        if len(oneof.fields) > 1
    }
    must = message.DESCRIPTOR.full_name in required or is_form(message)
    for field in fields_of(message):
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in chosen:
            if chosen[oneof.name] != field.name:
                continue
            if not (must or is_config(field) or draw(st.booleans())):
                continue
        elif not draw(st.booleans()):
            continue
        if field.name == NETWORKS and message.HasField("allow_private"):
            continue
        _draw_field(draw, message, field)


def _draw_field(
    draw: Callable[[st.SearchStrategy[object]], object], message: Message, field: FieldDescriptor
) -> None:
    inner = of_map(field)
    if inner is not None:
        for name in draw(st.lists(_text, max_size=2, unique=True)):  # type: ignore[attr-defined]
            if inner.message_type is not None:
                _draw(draw, getattr(message, field.name)[name])
            else:
                getattr(message, field.name)[name] = draw(_scalars(inner))
    elif field.is_repeated and pair(field) is not None:
        for name in draw(st.lists(_text, max_size=2, unique=True)):  # type: ignore[attr-defined]
            getattr(message, field.name).add(name=name, expression=draw(_text))
    elif field.is_repeated:
        for _ in range(draw(st.integers(0, 2))):  # type: ignore[call-overload]
            if field.message_type is not None:
                _draw(draw, getattr(message, field.name).add())
            else:
                getattr(message, field.name).append(draw(_scalars(field)))
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        _draw(draw, getattr(message, field.name))
    else:
        setattr(message, field.name, draw(_scalars(field)))


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[object]:
    if field.enum_type is not None:
        numbers = [value.number for value in field.enum_type.values if value.number]
        return st.sampled_from(numbers or [0])
    return {
        field.CPPTYPE_STRING: _text,
        field.CPPTYPE_BOOL: st.booleans(),
        field.CPPTYPE_DOUBLE: st.floats(0, 1),
        field.CPPTYPE_INT32: st.integers(1, 2**31 - 1),
        field.CPPTYPE_INT64: st.integers(1, 2**63 - 1),
    }[field.cpp_type]


@pytest.mark.parametrize("section", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_message_comes_back_as_it_was(section: str, data: st.DataObject) -> None:
    kind = KINDS[section].message
    message = data.draw(_messages(kind))
    tree = to_tree(message)
    again = to_message(tree, kind, section)
    assert to_tree(again) == tree
    # An empty list in an empty place is all that is lost.
    assert again == message


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_means_the_same_behind_the_api(path: Path) -> None:
    tree = plain(yaml.safe_load(path.read_text()))
    environment = dict.fromkeys(
        _variables(path.read_text()), "host=h whsec_c2VjcmV0c2VjcmV0c2VjcmV0"
    )
    nats = NatsSpec()
    stored = canonical(tree)
    assert canonical(stored) == stored
    before, after = (part(each, _usable(environment, path), nats) for each in (tree, stored))
    assert repr(before) == repr(after)


def _variables(text: str) -> set[str]:
    return {rest.partition("}")[0].partition(":-")[0] for rest in text.split("${")[1:]}


def _usable(environment: dict[str, str], path: Path) -> dict[str, str]:
    """Values that the models take for what their names say."""
    return {
        name: "https://example.com/hook"
        if "URL" in name
        else "whsec_" + "c2VjcmV0" * 4
        if "SECRET" in name
        else value
        for name, value in environment.items()
    }


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
