"""The API's messages say what the models of waxtap.yaml say, and nothing else."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from connectors import registry
from connectors.errors import ConfigError
from control.pb.cdc.v1 import config_pb2
from control.specs.fields import (
    NETWORKS,
    configs,
    descriptor,
    is_config,
    is_form,
    items,
    key,
    of_map,
    pair,
    shape,
    word,
)
from control.specs.writing import NEVER_EMPTY, to_message
from dataflows.configuration.options import SinkOptions, SourceOptions, TopicSpec
from dataflows.configuration.pipeline_spec import PipelineSpec

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message


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
