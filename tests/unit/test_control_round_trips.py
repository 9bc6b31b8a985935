"""What goes through the API's messages comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.jetstream.spec import NatsSpec
from control.specs.document import plain
from control.specs.fields import NETWORKS, is_config, is_form, of_map, pair
from control.specs.fields import settings as fields_of
from control.specs.kinds import KINDS, canonical
from control.specs.reading import to_tree
from control.specs.writing import to_message
from dataflows.spec import part

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

EXAMPLES = sorted(Path(__file__).parents[2].joinpath("examples").glob("*.yaml"))

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
