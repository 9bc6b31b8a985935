"""What the descriptors of the API's messages say about settings, and how YAML names them.

The member of a `oneof config` is the `type` of a source, a sink, or a part of one. Those of a
`oneof form` are the ways to write one setting, told apart by what stands there: a text, a list, or
a mapping. Names differ where YAML's are no good in a message (`from`, `with`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from google.protobuf.descriptor import Descriptor

from control.pb.cdc.v1 import config_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import EnumDescriptor, EnumValueDescriptor, FieldDescriptor
    from google.protobuf.message import Message

Resource = config_pb2.Source | config_pb2.Sink | config_pb2.Pipeline | config_pb2.Topic

TYPE = "type"
# `allow_private` of a webhook is a flag or a list in YAML.
PRIVATE, NETWORKS = "allow_private", "allow_networks"
_CONFIG, _FORM = "config", "form"
# The one field of a message that stands for a list in a oneof, which takes none.
_ITEMS = "items"
_RENAMED = {
    ("cdc.v1.Sink", "sources"): "from",
    ("cdc.v1.Pipeline", "sources"): "from",
    ("cdc.v1.Mask", "method"): "with",
}
# Words that are written in capitals.
_CAPITALS = {"cdc.v1.HttpMethod"}
# What the service says of a resource is none of its settings.
_OURS = ("name", "metadata")


def key(field: FieldDescriptor) -> str:
    """How `waxtap.yaml` calls a field."""
    message = field.containing_type
    return _RENAMED.get((message.full_name, field.name), field.name) if message else field.name


def descriptor(message: Message | type[Message]) -> Descriptor:
    """Its descriptor; which of protobuf's two kinds that is makes no difference."""
    return cast("Descriptor", message.DESCRIPTOR)


def settings(message: Message | type[Message]) -> list[FieldDescriptor]:
    """The fields that hold settings."""
    own = descriptor(message)
    is_resource = "metadata" in own.fields_by_name
    return [field for field in own.fields if not (is_resource and field.name in _OURS)]


def is_config(field: FieldDescriptor) -> bool:
    """Whether it holds a connector's own settings."""
    return field.containing_oneof is not None and field.containing_oneof.name == _CONFIG


def configs(message: Message | type[Message]) -> dict[str, FieldDescriptor]:
    """The fields that hold connectors' own settings, by `type`; empty: it has none."""
    return {field.name: field for field in descriptor(message).fields if is_config(field)}


def is_set(message: Message, field: FieldDescriptor) -> bool:
    """Whether a field says anything."""
    if field.has_presence and not field.is_repeated:
        return message.HasField(field.name)
    return bool(getattr(message, field.name))


def of_map(field: FieldDescriptor) -> FieldDescriptor | None:
    """A map's values; None: it is no map."""
    entry = field.message_type
    return entry.fields_by_name["value"] if entry and entry.GetOptions().map_entry else None


def prefix(enum: EnumDescriptor) -> str:
    """What every value's name begins with: that of the value 0, without its last word."""
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def word(value: EnumValueDescriptor) -> str:
    """How `waxtap.yaml` writes a value of an enum."""
    end = value.name.removeprefix(prefix(value.type))
    return end if value.type.full_name in _CAPITALS else end.lower()


def is_form(message: Message | type[Message] | Descriptor) -> bool:
    """Whether it holds one setting that can be written in several ways."""
    own = message if isinstance(message, Descriptor) else descriptor(message)
    return _FORM in own.oneofs_by_name


def items(field: FieldDescriptor) -> FieldDescriptor | None:
    """The list that a field's message stands for; None: it stands for itself."""
    inner = field.message_type.fields if field.message_type else ()
    return inner[0] if len(inner) == 1 and inner[0].name == _ITEMS else None


def shape(field: FieldDescriptor) -> type:
    """How a member of a `oneof form` stands in `waxtap.yaml`: str, list or dict."""
    if field.message_type is None:
        return str
    inner = items(field)
    return list if inner is not None and pair(inner) is None else dict


def pair(field: FieldDescriptor) -> FieldDescriptor | None:
    """Of a list that is a mapping whose order counts: its values; None: it is a list."""
    inner = field.message_type.fields if field.message_type else ()
    return inner[1] if len(inner) == 2 and inner[0].name == "name" else None


def field_path(kind: type[Message], type_: str, path: Sequence[str]) -> str:
    """Where a key of `waxtap.yaml` stands in a message: `dsn` of a source is `postgres.dsn`.

    Args:
        kind: Of the message.
        type_: The connector; empty where there is none.
        path: Keys and indices below the resource, such as `transform`, `0`, `mask`, `with`.
    """
    own = {key(field) for field in settings(kind) if not is_config(field)}
    if path and path[0] == TYPE and configs(kind):
        return _CONFIG
    if path and path[0] not in own and type_ in configs(kind):
        path = [type_, *path]
    found = ""
    inside: Descriptor | None = descriptor(kind)
    for part in path:
        if part.isdecimal() and found:
            found += f"[{part}]"
            continue
        way = _ways(inside, part) if inside else []
        if inside and not way and is_form(inside):
            # The name of one of the forms, as the model calls it.
            continue
        names = [field.name for field in way] or [part]
        found = ".".join([found, *names]).lstrip(".")
        inside = way[-1].message_type if way and of_map(way[-1]) is None else None
    return found


def _ways(message: Descriptor, part: str) -> list[FieldDescriptor]:
    """The fields that lead to a key; more than one where a member of a oneof has it."""
    by_key = {key(field): field for field in message.fields}
    if part in by_key and not is_form(message):
        return [by_key[part]]
    alone = [
        [field, inner]
        for field in message.fields
        if is_config(field) or is_form(message)
        for inner in (field.message_type.fields if field.message_type else ())
        if key(inner) == part and inner.name != _ITEMS
    ]
    return alone[0] if len(alone) == 1 else []
