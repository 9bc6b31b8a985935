"""From the tree of `waxtap.yaml` to the API's messages, along the messages' descriptors.

What a message cannot hold is refused: a reference in place of a number, say. So a tree that went
through a message once is the same after any number of ways there and back.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import NULL_VALUE, Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from connectors.errors import ConfigError
from connectors.quantities import share
from control.pb.cdc.v1.config_pb2 import Constant, RequestVerification, Start, Transform
from control.specs.fields import (
    NETWORKS,
    PRIVATE,
    TYPE,
    configs,
    descriptor,
    is_config,
    is_form,
    items,
    key,
    of_map,
    pair,
    prefix,
    settings,
    shape,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from control.specs.fields import Resource

    _Resource = TypeVar("_Resource", bound=Resource)

# An empty list means something else here than one that is absent; a message cannot tell them apart.
NEVER_EMPTY = frozenset(
    {
        "cdc.v1.PostgresSource.tables",
        "cdc.v1.MysqlSource.tables",
        "cdc.v1.MariadbSource.tables",
    }
)
_INTEGERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)
# As pydantic reads them, so that the message says what the model says: "4" is 4 there.
_AS: dict[int, TypeAdapter[bool] | TypeAdapter[int] | TypeAdapter[float]] = {
    FieldDescriptor.CPPTYPE_BOOL: TypeAdapter(bool),
    FieldDescriptor.CPPTYPE_DOUBLE: TypeAdapter(Annotated[float, BeforeValidator(share)]),
    **dict.fromkeys(_INTEGERS, TypeAdapter(int)),
}
_FORMS: dict[type, str] = {str: "a text", list: "a list", dict: "a mapping"}
_TIME = TypeAdapter(datetime)
# Beyond it a double, which a Struct's numbers are, does not tell every integer.
_EXACT = 2**53


def to_message(entry: object, kind: type[_Resource], where: str) -> _Resource:
    """The message that holds these settings, which have been checked already.

    Args:
        entry: As it stands in `waxtap.yaml`.
        kind: Of which message.
        where: Its path there, for errors.

    Raises:
        ConfigError: A message cannot hold it.
    """
    message = kind()
    _fill(message, entry, where)
    return message


def _fill(message: Message, tree: object, where: str) -> None:
    keys = dict(_mapping(tree, where))
    if configs(message):
        _fill_config(message, keys, where)
    if NETWORKS in descriptor(message).fields_by_name and isinstance(keys.get(PRIVATE), list | str):
        keys[NETWORKS] = keys.pop(PRIVATE)
    # YAML takes some of them by either name.
    fields = {field.name: field for field in settings(message)}
    fields |= {key(field): field for field in settings(message)}
    for name, value in keys.items():
        if name not in fields:
            raise _invalid("unknown key", f"{where}.{name}")
        if value is not None:
            _set(message, fields[name], value, f"{where}.{name}")


def _fill_config(message: Message, keys: dict[str, object], where: str) -> None:
    """Move the connector's own settings into its message."""
    kind = str(keys.pop(TYPE, ""))
    if kind not in configs(message):
        raise ConfigError(
            "config.unknown_type",
            f"{kind!r} is not a type that the control service knows",
            where=f"{where}.{TYPE}",
            cure=f"known: {', '.join(configs(message))}",
        )
    fields = settings(message)
    options = {key(field) for field in fields if not is_config(field)}
    own = {name: keys.pop(name) for name in list(keys) if name not in options}
    member: Message = getattr(message, kind)
    member.SetInParent()
    _fill(member, own, where)


def _set(message: Message, field: FieldDescriptor, value: object, where: str) -> None:
    inner = of_map(field)
    if inner is not None:
        target = getattr(message, field.name)
        for name, each in _mapping(value, where).items():
            if inner.message_type is not None:
                _put(target[name], each, f"{where}.{name}")
            else:
                target[name] = _scalar(inner, each, f"{where}.{name}")
    elif field.is_repeated:
        target = getattr(message, field.name)
        for index, each in enumerate(_items(field, value, where)):
            if field.message_type is not None:
                _put(target.add(), each, f"{where}.{index}")
            else:
                target.append(_scalar(field, each, f"{where}.{index}"))
    elif field.message_type is not None:
        member: Message = getattr(message, field.name)
        member.SetInParent()
        _put(member, value, where)
    else:
        setattr(message, field.name, _scalar(field, value, where))


def _put(message: Message, value: object, where: str) -> None:
    if isinstance(message, Struct):
        message.update(cast("Mapping[str, None]", _exact(_mapping(value, where), where)))
    elif isinstance(message, Timestamp):
        _put_time(message, value, where)
    elif isinstance(message, Constant):
        _put_constant(message, value, where)
    elif isinstance(message, Start | RequestVerification) and isinstance(value, str):
        _fill(message, {value: True}, where)
    elif is_form(message):
        _put_form(message, value, where)
    elif isinstance(message, Transform):
        _fill(message, _written_out(value, where), where)
    else:
        _fill(message, value, where)


def _put_form(message: Message, value: object, where: str) -> None:
    kind = type(value) if isinstance(value, list | dict) else str
    forms = {shape(field): field for field in settings(message)}
    if kind not in forms:
        known = " or ".join(_FORMS[each] for each in forms)
        raise _invalid(f"{known} is expected here", where)
    field = forms[kind]
    inner = items(field)
    if inner is None:
        _set(message, field, value, where)
    else:
        member: Message = getattr(message, field.name)
        member.SetInParent()
        second = pair(inner)
        if second is not None:
            value = [{"name": k, second.name: v} for k, v in _mapping(value, where).items()]
        _set(member, inner, value, where)


def _written_out(transform: object, where: str) -> dict[str, object]:
    """The long form of a transform, for which YAML has short ones."""
    if isinstance(transform, str):
        return {transform: {}}
    [(name, step)] = _mapping(transform, where).items()
    if name == "python" and isinstance(step, str):
        return {name: {"function": step}}
    if name in ("drop", "keep") and not isinstance(step, dict):
        return {name: {"fields": step}}
    return {name: {} if step is None else step}


def _scalar(field: FieldDescriptor, value: object, where: str) -> object:
    if field.type == FieldDescriptor.TYPE_STRING:
        # Durations and sizes may be plain numbers.
        return f"{value:f}" if isinstance(value, float) else str(value)
    if isinstance(value, str) and "${" in value:
        raise ConfigError(
            "config.reference_not_text",
            "a reference can stand in place of a text only",
            where=where,
            cure="write the value itself",
        )
    if field.enum_type is not None:
        found = field.enum_type.values_by_name.get(f"{prefix(field.enum_type)}{value}".upper())
        if found is None:
            raise _invalid(f"{value!r} is not known here", where)
        return found.number
    try:
        return _AS[field.cpp_type].validate_python(value)
    except ValidationError:
        raise _invalid("a number, or true or false, is expected here", where) from None


def _items(field: FieldDescriptor, value: object, where: str) -> list[object]:
    items = value if isinstance(value, list) else [value]
    if not items and field.full_name in NEVER_EMPTY:
        cure = "name something, or leave the key out to take everything"
        raise _invalid("an empty list takes nothing", where, cure)
    return items


def _put_time(message: Timestamp, value: object, where: str) -> None:
    try:
        message.FromDatetime(_TIME.validate_python(value))
    except ValidationError:
        raise _invalid("a time is written such as 2026-01-31T12:00:00Z", where) from None


def _put_constant(message: Constant, value: object, where: str) -> None:
    if value is None:
        message.null = NULL_VALUE
    elif isinstance(value, bool):
        message.boolean = value
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _invalid("an integer has 64 bits at most", where)
        message.integer = value
    elif isinstance(value, float):
        message.number = value
    else:
        message.text = str(value)


def _exact(value: object, where: str) -> object:
    if isinstance(value, dict):
        return {str(name): _exact(each, f"{where}.{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [_exact(each, f"{where}.{index}") for index, each in enumerate(value)]
    if isinstance(value, int) and abs(value) > _EXACT:
        cure = "write it as a text"
        raise _invalid("an integer beyond 2**53 cannot be told exactly", where, cure)
    return value


def _mapping(tree: object, where: str) -> dict[str, object]:
    if not isinstance(tree, dict):
        raise ConfigError(
            "config.not_a_mapping", "a mapping of names is expected here", where=where
        )
    return tree


def _invalid(message: str, where: str, cure: str = "") -> ConfigError:
    return ConfigError("config.invalid", message, where=where, cure=cure)
