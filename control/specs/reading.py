"""From the API's messages to the tree of `waxtap.yaml`, along the messages' descriptors.

A field that is not set is a key that is absent. A value of an enum is the end of its name in lower
case: `ZERO_DATES_AS_NULL` is `as_null`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from connectors.errors import ConfigError
from control.pb.cdc.v1.config_pb2 import Constant
from control.specs.fields import (
    NETWORKS,
    PRIVATE,
    TYPE,
    descriptor,
    is_config,
    is_form,
    is_set,
    items,
    key,
    of_map,
    pair,
    settings,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor


def to_tree(message: Message, place: str = "") -> dict[str, object]:
    """The settings that a message holds, as they stand in `waxtap.yaml`.

    Args:
        message: A resource, or a part of one.
        place: Its own path, for errors.

    Raises:
        ConfigError: Fields exclude each other, or a value is unknown; `where` is a field's path.
    """
    tree: dict[str, object] = {}
    for field in settings(message):
        if not is_set(message, field):
            continue
        value: object = getattr(message, field.name)
        path = f"{place}.{field.name}" if place else field.name
        if is_config(field):
            tree = {TYPE: field.name} | to_tree(cast("Message", value), path) | tree
        else:
            tree[key(field)] = _value(field, value, path)
    if NETWORKS in tree:
        if PRIVATE in tree:
            raise ConfigError(
                "config.invalid", f"either {PRIVATE} or {NETWORKS}", where=f"{place}.{NETWORKS}"
            )
        tree[PRIVATE] = tree.pop(NETWORKS)
    return tree


def _value(field: FieldDescriptor, value: object, path: str) -> object:
    inner = of_map(field)
    if inner is not None:
        entries = cast("Mapping[str, object]", value)
        # A map has no order of its own.
        return {name: _single(inner, entries[name], f"{path}.{name}") for name in sorted(entries)}
    if field.is_repeated:
        items = cast("Iterable[object]", value)
        return [_single(field, item, f"{path}[{index}]") for index, item in enumerate(items)]
    return _single(field, value, path)


def _single(field: FieldDescriptor, value: object, path: str) -> object:
    if field.enum_type is not None:
        return _word(field.enum_type, cast("int", value), path)
    if isinstance(value, Struct):
        return _integers(MessageToDict(value))
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Constant):
        return _constant(value, path)
    if isinstance(value, Message) and is_form(value):
        return _form(value, path)
    return to_tree(value, path) if isinstance(value, Message) else value


def _form(message: Message, path: str) -> object:
    chosen = message.WhichOneof("form")
    if chosen is None:
        raise ConfigError("config.invalid", "a value is missing", where=path)
    field = descriptor(message).fields_by_name[chosen]
    value: object = getattr(message, chosen)
    inner = items(field)
    if inner is None:
        return _single(field, value, f"{path}.{chosen}")
    path = f"{path}.{chosen}.{inner.name}"
    second = pair(inner)
    if second is None:
        return _value(inner, getattr(value, inner.name), path)
    pairs: dict[str, object] = {}
    for index, each in enumerate(getattr(value, inner.name)):
        if each.name in pairs:
            raise ConfigError(
                "config.invalid", f"{each.name!r} is given twice", where=f"{path}[{index}].name"
            )
        pairs[each.name] = _single(second, getattr(each, second.name), f"{path}[{index}]")
    return pairs


def _word(enum: EnumDescriptor, number: int, path: str) -> str:
    value = enum.values_by_number.get(number)
    if value is None or not number:
        raise ConfigError(
            "config.invalid",
            f"{number} is no value of {enum.name}",
            where=path,
            cure=f"known: {', '.join(each.name for each in enum.values if each.number)}",
        )
    return word(value)


def _constant(constant: Constant, path: str) -> object:
    chosen = constant.WhichOneof("value")
    if chosen is None:
        raise ConfigError("config.invalid", "a value is missing", where=path)
    return None if chosen == "null" else cast("object", getattr(constant, chosen))


def _integers(value: object) -> object:
    """A Struct has doubles only."""
    if isinstance(value, dict):
        return {name: _integers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_integers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
