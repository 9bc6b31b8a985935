"""Rows of a SELECT to JSON: one generated function a table splices the server's bytes.

What comes out equals what `binlog.compiled` makes of the same row in the log. Values that a SELECT
shows as the log holds them are rendered by the very functions of the log; of the others, this
module knows the text that the server prints.

Functions are built as syntax trees: names of columns only ever appear in them as constants.
"""

from __future__ import annotations

import ast
import json
import re
from json.encoder import encode_basestring
from struct import Struct
from typing import TYPE_CHECKING, TypeAlias, cast

from connectors.codegen import define, expression, fstring
from connectors.json_text import ascii_json, ascii_of_byte_text, json_string
from connectors.mysql.binlog.fast_values import is_utf8, renderer_of_plain
from connectors.mysql.binlog.types import Kind
from connectors.mysql.binlog.values import float_text, is_date
from connectors.mysql.snapshot.result_set import NULL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.mysql.binlog.table import Table
    from connectors.mysql.binlog.types import ValueType

    # `(bytes, the same as byte text, where the row begins) -> (JSON, key, JSON nulls)`
    Splice: TypeAlias = Callable[[bytes, str, int], tuple[str, str | None, tuple[str, ...]]]

_MOST_KEPT = 20_000
_DATED = {Kind.DATE, Kind.DATETIME, Kind.TIMESTAMP}
# A SELECT shows their values as the log holds them.
_BYTES = {Kind.BINARY, Kind.BIT, Kind.GEOMETRY, Kind.VECTOR}
_PLAIN = {Kind.DECIMAL, Kind.TIME, Kind.UUID, Kind.INET4, Kind.INET6}
_ASCII = {Kind.INTEGER, Kind.FLOAT, Kind.DOUBLE, Kind.YEAR, *_DATED, *_BYTES, *_PLAIN}
_SHORT = _ASCII - _BYTES
_BLANKS = re.compile(r'("(?:[^"\\]|\\.)*")|\s+', re.DOTALL)
_single = Struct("<f").pack


class _Dates(dict[str, bool]):
    """Whether a calendar has a date."""

    def __missing__(self, text: str) -> bool:
        if len(self) >= _MOST_KEPT:
            self.clear()
        year, month, day = text.split("-")
        known = self[text] = is_date(int(year), int(month), int(day))
        return known


class _Floats(dict[str, str]):
    """Single-precision numbers, from the double-precision ones that they are."""

    def __missing__(self, text: str) -> str:
        if len(self) >= _MOST_KEPT:
            self.clear()
        shown = self[text] = float_text(_single(float(text)))
        return shown


def json_text(text: str) -> str:
    """MySQL's JSON without the blanks that it prints between values."""
    if " " not in text:
        return text
    if "\\" in text:
        return _BLANKS.sub(r"\1", text)
    pieces = text.split('"')
    # what stands between strings, and not in them
    pieces[::2] = "\0".join(pieces[::2]).replace(" ", "").split("\0")
    return '"'.join(pieces)


def unzero(text: str) -> str:
    """A number without the leading zeros of ZEROFILL."""
    stripped = text.lstrip("0")
    return stripped if stripped[:1].isdigit() else f"0{stripped}"


def other_value(data: bytes, text: str, at: int) -> tuple[str | None, int]:
    """A value whose length is not one byte, and where it ends; None for NULL."""
    first = data[at]
    if first == NULL:
        return None, at + 1
    if first < NULL:
        size, start = first, at + 1
    else:
        width = {252: 2, 253: 3, 254: 8}[first]
        start = at + 1 + width
        size = int.from_bytes(data[at + 1 : start], "little")
    return text[start : start + size], start + size


def values_of(data: bytes, at: int, count: int) -> list[str | None]:
    """The first values of a row, as byte text."""
    text, found = str(data, "latin-1"), []
    for _ in range(count):
        value, at = other_value(data, text, at)
        found.append(value)
    return found


def splicer(table: Table, zerofill: Sequence[bool], *, zero_dates: bool) -> Splice:
    """The function that makes JSON of a table's rows.

    It raises ValueError, KeyError or IndexError where a row is not what the table promises, or
    FatalError `mysql.undecodable_text`.

    Args:
        table: Whose rows.
        zerofill: For each column, whether its numbers have leading zeros.
        zero_dates: As in `values.render`.
    """
    names: dict[str, object] = {
        "other": other_value,
        "escaped": encode_basestring,
        "ascii_key": ascii_of_byte_text,
        "dates": _Dates(),
        "floats": _Floats(),
        "unzero": unzero,
        "compact": json_text,
        "number": float,
    }
    columns = [column.name for column in table.schema.columns]
    lines: list[str] = []
    row: list[str | ast.expr] = ["{"]
    for index, type_ in enumerate(table.types):
        names[f"type{index}"] = _bytes_function(type_, zero_dates=zero_dates)
        lines += _take(index, type_)
        value = _value(index, type_, zerofill=zerofill[index], zero_dates=zero_dates)
        lines.append(f"t{index} = 'null' if v{index} is None else {value}")
        row += [f"{',' if index else ''}{json_string(columns[index])}:", expression(f"t{index}")]
    row.append("}")
    key: list[str | ast.expr] = ["{"]
    for place, index in enumerate(table.key):
        type_ = table.types[index]
        name = ascii_json(json.dumps(columns[index], ensure_ascii=False))
        # A key tells a date that no calendar has, even where the row does not.
        shown = f"t{index}"
        if type_.kind in _DATED:
            shown = _value(index, type_, zerofill=False, zero_dates=True)
        key += [f"{',' if place else ''}{name}:", expression(shown)]
    key.append("}")
    shown_key: ast.expr = ast.Constant(None)
    if table.key:
        shown_key = fstring(key)
        if any(table.types[index].kind not in _ASCII for index in table.key):
            shown_key = ast.Call(ast.Name("ascii_key", ast.Load()), [shown_key], [])
    documents = [index for index, type_ in enumerate(table.types) if type_.kind is Kind.JSON]

    def json_nulls(*texts: str | None) -> tuple[str, ...]:
        pairs = zip(documents, texts, strict=True)
        return tuple(columns[index] for index, text in pairs if text == "null")

    names["json_nulls"] = json_nulls
    nulls = expression("()")
    if documents:
        suspect = " or ".join(f"v{index} == 'null'" for index in documents)
        shown_values = ", ".join(f"v{index}" for index in documents)
        nulls = expression(f"json_nulls({shown_values}) if {suspect} else ()")
    source = ["def generated(data, text, at):", *(f" {line}" for line in lines), " return None"]
    module = ast.parse("\n".join(source))
    returned = next(node for node in ast.walk(module) if isinstance(node, ast.Return))
    returned.value = ast.Tuple([fstring(row), shown_key, nulls], ast.Load())
    return cast("Splice", define(names, module))


def _take(index: int, type_: ValueType) -> list[str]:
    """The statements that take a value."""
    lines = [
        "size = data[at]",
        f"if size < {NULL}:",
        " end = at + size + 1",
        f" v{index} = text[at + 1:end]",
        " at = end",
    ]
    if type_.kind in _SHORT:
        return [*lines, f"elif size == {NULL}:", f" v{index} = None", " at += 1"]
    return [*lines, "else:", f" v{index}, at = other(data, text, at)"]


def _value(index: int, type_: ValueType, *, zerofill: bool, zero_dates: bool) -> str:
    """The expression that makes JSON of a value that is not NULL."""
    v, kind = f"v{index}", type_.kind
    if kind is Kind.INTEGER:
        return f"unzero({v})" if zerofill else v
    if kind is Kind.YEAR:
        return f"'0' if {v} == '0000' else {v}"
    if kind is Kind.DOUBLE:
        return f"number({v}).__repr__()"
    if kind is Kind.FLOAT:
        return f"floats[{v}]"
    if kind is Kind.DECIMAL and zerofill:
        return f"f'\"{{unzero({v})}}\"'"
    if kind in _PLAIN:
        return f"f'\"{{{v}}}\"'"
    if kind is Kind.DATE:
        shown = f"f'\"{{{v}}}\"'"
        return shown if zero_dates else f"({shown} if dates[{v}] else 'null')"
    if kind is Kind.DATETIME:
        shown = f"f'\"{{{v}[:10]}}T{{{v}[11:]}}\"'"
        return shown if zero_dates else f"({shown} if dates[{v}[:10]] else 'null')"
    if kind is Kind.TIMESTAMP:
        shown = f"f'\"{{{v}[:10]}}T{{{v}[11:]}}Z\"'"
        zero = f"f'\"{{{v}[:10]}}T{{{v}[11:]}}\"'" if zero_dates else "'null'"
        return f"({zero} if {v}[0] == '0' else {shown})"
    if kind is Kind.JSON:
        return f"compact({v})"
    if kind in (Kind.ENUM, Kind.SET) or is_utf8(type_):
        return f"escaped({v})"
    return f"type{index}({v}.encode('latin-1'))"


def _bytes_function(type_: ValueType, *, zero_dates: bool) -> Callable[[bytes], str] | None:
    if type_.kind in _BYTES or (type_.kind is Kind.TEXT and not is_utf8(type_)):
        return renderer_of_plain(type_, zero_dates=zero_dates)
    return None
