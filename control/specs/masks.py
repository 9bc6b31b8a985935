"""Update masks (AIP-134): which fields of a stored resource a request replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from connectors.errors import ConfigError
from control.pb.cdc.v1.config_pb2 import Constant
from control.specs.fields import descriptor, is_config, is_form, is_set, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import FieldDescriptor

    from control.specs.fields import Resource

_EVERYTHING = "*"
_WHOLE = (Struct, Timestamp, Constant)


def merge(stored: Resource, given: Resource, mask: Sequence[str]) -> None:
    """Put the fields of `given` that a mask names into `stored`.

    Args:
        stored: What there is; changed in place.
        given: What the request has. A field that the mask names and that is not set is cleared.
        mask: Paths such as `postgres.tables`; none: every field that is set; `*`: all.

    Raises:
        ConfigError: A path leads nowhere, or to what the request has something else instead of;
            `where` is `update_mask`.
    """
    if _EVERYTHING in mask:
        if len(mask) > 1:
            raise _wrong("`*` stands alone")
        for field in settings(stored):
            stored.ClearField(field.name)  # type: ignore[arg-type]
            if is_set(given, field):
                _copy(stored, given, field)
    elif mask:
        for path in mask:
            _check_members(given, path, mask)
        for path in mask:
            _put(stored, given, path.split("."), path)
    else:
        _merge_set(stored, given)


def _check_members(given: Message, path: str, mask: Sequence[str]) -> None:
    """Refuse a path to a member of a oneof in whose place the request has another one."""
    before = ""
    names = path.split(".")
    for depth, name in enumerate(names):
        field = descriptor(given).fields_by_name.get(name)
        if field is None:
            return  # told where it is looked for
        others = field.containing_oneof
        chosen = given.WhichOneof(others.name) if others is not None else None
        if chosen not in (None, name) and (depth + 1 < len(names) or before + chosen not in mask):
            raise _wrong(f"{path}: the request has {before}{chosen} in place of {before}{name}")
        if field.message_type is None or field.is_repeated:
            return
        given, before = getattr(given, name), f"{before}{name}."


def _put(stored: Message, given: Message, path: list[str], whole: str) -> None:
    first, *rest = path
    known = {field.name: field for field in settings(stored)}
    field = known.get(first)
    if field is None:
        raise _wrong(f"{whole}: there is no field {first}; known: {', '.join(known)}")
    if not rest:
        stored.ClearField(first)
        if is_set(given, field):
            _copy(stored, given, field)
        return
    if field.message_type is None or field.is_repeated:
        raise _wrong(f"{whole}: {first} has no fields, it is replaced as a whole")
    if is_config(field) and not stored.HasField(first):
        raise _wrong(f"{whole}: it is no {first}; give `{first}` as a whole to make it one")
    member: Message = getattr(stored, first)
    if isinstance(member, _WHOLE) or is_form(member):
        raise _wrong(f"{whole}: {first} is replaced as a whole")
    member.SetInParent()
    _put(member, getattr(given, first), rest, whole)


def _merge_set(stored: Message, given: Message) -> None:
    for field in settings(given):
        if not is_set(given, field):
            continue
        member: object = getattr(given, field.name)
        known = stored.HasField(field.name) if field.has_presence else False
        whole = isinstance(member, _WHOLE) or (isinstance(member, Message) and is_form(member))
        if known and field.message_type is not None and not whole:
            _merge_set(getattr(stored, field.name), getattr(given, field.name))
        else:
            stored.ClearField(field.name)
            _copy(stored, given, field)


def _copy(stored: Message, given: Message, field: FieldDescriptor) -> None:
    alone = type(given)()
    alone.CopyFrom(given)
    for other in descriptor(alone).fields:
        if other.name != field.name:
            alone.ClearField(other.name)
    stored.MergeFrom(alone)


def _wrong(message: str) -> ConfigError:
    return ConfigError("control.update_mask", message, where="update_mask")
