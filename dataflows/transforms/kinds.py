"""The kinds of values that transforms can make, in the terms of each dialect."""

from __future__ import annotations

import re
from math import isfinite
from typing import TYPE_CHECKING, Literal

import msgspec

from connectors.contracts.changes import Column
from dataflows.failing import StepError
from dataflows.transforms.record import NULL, encode

if TYPE_CHECKING:
    from connectors.contracts.changes import TableSchema

Kind = Literal["string", "integer", "number", "decimal", "boolean", "json"]

# How values of a kind stand in the envelope (`Column.json`).
_JSON: dict[Kind, str] = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "decimal": "string",
    "boolean": "boolean",
    "json": "json",
}
_POSTGRESQL: dict[Kind, str] = {
    "string": "text",
    "integer": "bigint",
    "number": "double precision",
    "decimal": "numeric",
    "boolean": "boolean",
    "json": "jsonb",
}
_MYSQL: dict[Kind, str] = {
    "string": "longtext",
    "integer": "bigint",
    "number": "double",
    "decimal": "decimal(65,30)",
    "boolean": "boolean",
    "json": "json",
}
_PLAIN: dict[Kind, str] = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "decimal": "decimal",
    "boolean": "boolean",
    "json": "json",
}
_DIALECTS = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BOOLEANS = {
    "true": b"true",
    "t": b"true",
    "1": b"true",
    "false": b"false",
    "f": b"false",
    "0": b"false",
}
_decode_text = msgspec.json.Decoder(str).decode
_decode_anything = msgspec.json.Decoder(msgspec.Raw).decode


def column_of(table: TableSchema, name: str, kind: Kind) -> Column:
    """A column for values of this kind, in the dialect of the table."""
    return Column(name, _DIALECTS.get(table.dialect, _PLAIN)[kind], _JSON[kind])


def text_of(value: bytes) -> str:
    """A value's text: of a string what it says, of everything else its JSON."""
    return _decode_text(value) if value[:1] == b'"' else value.decode()


def converted(value: msgspec.Raw, kind: Kind) -> msgspec.Raw:
    """The value as one of this kind; null stays null. Digits are never lost.

    Raises:
        StepError: It is none of this kind.
    """
    data = bytes(value)
    if data == b"null":
        return NULL
    if kind == "json":
        return _parsed(_decode_text(data)) if data[:1] == b'"' else value
    text = text_of(data)
    if kind == "string":
        return value if data[:1] == b'"' else msgspec.Raw(encode(text))
    if kind == "boolean":
        if text in _BOOLEANS:
            return msgspec.Raw(_BOOLEANS[text])
    elif kind == "integer":
        text = {"true": "1", "false": "0"}.get(text, text)
        if _INTEGER.fullmatch(text):
            return msgspec.Raw(text.encode())
    elif _NUMBER.fullmatch(text):
        return msgspec.Raw(text.encode() if kind == "number" else f'"{text}"'.encode())
    raise StepError("transform.cannot_cast", f"a value is no {kind}")


def made(value: object, kind: Kind) -> msgspec.Raw:
    """A value that a program has computed, as one of this kind; None is null.

    Raises:
        StepError: It is none of this kind.
    """
    if value is None:
        return NULL
    try:
        if _fits(value, kind):
            return msgspec.Raw(encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass
    raise StepError("transform.wrong_type", f"the result is no {kind}")


def _fits(value: object, kind: Kind) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return (
                isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            )
        case "decimal":
            return isinstance(value, str) and _NUMBER.fullmatch(value) is not None
        case "json":
            return True


def _parsed(text: str) -> msgspec.Raw:
    try:
        return _decode_anything(text)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise StepError("transform.cannot_cast", "a text is no JSON") from None
