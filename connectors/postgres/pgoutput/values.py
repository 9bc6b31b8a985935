"""The obviously right decoder of values: the text that PostgreSQL prints, to JSON.

The mapping is the table of docs/postgres-types.md. The text is what a session with
`client_encoding=UTF8, TimeZone=UTC, DateStyle=ISO, IntervalStyle=iso_8601, extra_float_digits=3,
bytea_output=hex` prints.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import TYPE_CHECKING, TypeAlias

from connectors.errors import FatalError
from connectors.postgres.pgoutput.types import Kind

if TYPE_CHECKING:
    from connectors.postgres.pgoutput.types import ValueType

# An array as written: element texts, NULL as None, one list for each dimension.
Elements: TypeAlias = "list[str | Elements | None]"

_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")
_NOT_A_NUMBER = ("NaN", "Infinity", "-Infinity")
_TIMESTAMP = re.compile(r"([0-9]{4,}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?)")
_BOUNDS = re.compile(r"(\[-?[0-9]+:-?[0-9]+\])+=")
# What may surround an array's elements (`array_isspace`).
_SPACE = " \t\n\v\f\r"
# What may surround a JSON value (RFC 8259, 2); the type json keeps it.
_JSON_SPACE = " \t\n\r"


def render(text: str, type_: ValueType) -> str:
    """The JSON text of one value that is not NULL.

    Raises:
        FatalError: `postgres.unexpected_value`: not what a session with the settings above prints.
    """
    if type_.element is not None:
        return _array(parse_array(text, type_.delimiter), type_.element)
    match type_.kind:
        case Kind.INTEGER if _INTEGER.fullmatch(text):
            return text
        case Kind.FLOAT if text in _NOT_A_NUMBER:
            return json.dumps(text)
        case Kind.FLOAT if _NUMBER.fullmatch(text):
            return text
        case Kind.BOOLEAN if text in ("t", "f"):
            return json.dumps(text == "t")
        case Kind.JSON:
            return text
        case Kind.BYTEA if text.startswith("\\x"):
            return json.dumps(_base64(text))
        case Kind.TIMESTAMP:
            return json.dumps(_timestamp(text))
        case Kind.TIMESTAMPTZ:
            return json.dumps(_timestamptz(text))
        case Kind.PLAIN | Kind.TEXT:
            return json.dumps(text, ensure_ascii=False)
    raise _unexpected(type_.name)


def is_json_null(text: str) -> bool:
    """Whether a value of type json or jsonb is the JSON null."""
    return text.strip(_JSON_SPACE) == "null"


def _unexpected(name: str) -> FatalError:
    return FatalError(
        "postgres.unexpected_value",
        f"a value of type {name} is not in the form that was asked for",
        cure="do not override the session's output settings on the replication connection",
    )


def _base64(text: str) -> str:
    try:
        return b64encode(bytes.fromhex(text[2:])).decode()
    except ValueError:
        raise _unexpected("bytea") from None


def _is_special(text: str) -> bool:
    """Infinity and dates before Christ keep the form that PostgreSQL prints."""
    return text in ("infinity", "-infinity") or text.endswith(" BC")


def _timestamp(text: str) -> str:
    if _is_special(text):
        return text
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise _unexpected("timestamp without time zone")
    return f"{match[1]}T{match[2]}"


def _timestamptz(text: str) -> str:
    if _is_special(text):
        return text
    match = _TIMESTAMP.fullmatch(text.removesuffix("+00"))
    if match is None or not text.endswith("+00"):
        raise _unexpected("timestamp with time zone")
    return f"{match[1]}T{match[2]}Z"


def _array(elements: Elements, type_: ValueType) -> str:
    return "[" + ",".join(_element(element, type_) for element in elements) + "]"


def _element(element: str | Elements | None, type_: ValueType) -> str:
    if element is None:
        return "null"
    if isinstance(element, str):
        return render(element, type_)
    return _array(element, type_)


def parse_array(text: str, delimiter: str = ",") -> Elements:
    """Read an array as `array_out` prints it; lower bounds (`[0:1]=`) are dropped.

    Source: PostgreSQL documentation, "Array Input and Output Syntax".

    Raises:
        FatalError: `postgres.unexpected_value`: not an array.
    """
    bounds = _BOUNDS.match(text)
    start = bounds.end() if bounds else 0
    if text[start : start + 1] != "{":
        raise _unexpected("array")
    try:
        elements, end = _dimension(text, start + 1, delimiter)
    except IndexError:
        raise _unexpected("array") from None
    if end != len(text):
        raise _unexpected("array")
    return elements


def _dimension(text: str, position: int, delimiter: str) -> tuple[Elements, int]:
    """Read up to the brace that closes the dimension; returns where it goes on behind that."""
    elements: Elements = []
    if text[position] == "}":
        return elements, position + 1
    while True:
        element: str | Elements | None
        if text[position] == "{":
            element, position = _dimension(text, position + 1, delimiter)
        elif text[position] == '"':
            element, position = _quoted(text, position + 1)
        else:
            element, position = _unquoted(text, position, delimiter)
        elements.append(element)
        if text[position] == "}":
            return elements, position + 1
        if text[position] != delimiter:
            raise _unexpected("array")
        position += 1


def _quoted(text: str, position: int) -> tuple[str, int]:
    characters = []
    while text[position] != '"':
        if text[position] == "\\":
            position += 1
        characters.append(text[position])
        position += 1
    return "".join(characters), position + 1


def _unquoted(text: str, position: int, delimiter: str) -> tuple[str | None, int]:
    start = position
    while text[position] not in (delimiter, "}"):
        if text[position] in '{"\\' or text[position] in _SPACE:
            raise _unexpected("array")
        position += 1
    element = text[start:position]
    if not element:
        raise _unexpected("array")
    return (None if element == "NULL" else element), position
