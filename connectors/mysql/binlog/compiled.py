"""Row images to JSON, the fast way: one generated function for each pattern of NULLs of a table.

A function unpacks runs of columns of fixed size at once, takes strings by their lengths, and
splices everything into one f-string. Functions are built as syntax trees: names of columns only
ever appear in them as constants, never as source text. What comes out equals what
`rows.ExactReader` makes.
"""

from __future__ import annotations

import ast
import json
from json.encoder import encode_basestring
from struct import Struct
from typing import TYPE_CHECKING, TypeAlias, cast

from connectors.codegen import define, fstring
from connectors.json_text import ascii_json, ascii_of_byte_text, json_string
from connectors.mysql.binlog.fast_values import from_bytes, is_utf8, renderer
from connectors.mysql.binlog.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.mysql.binlog.table import Table
    from connectors.mysql.binlog.types import ValueType

    # `(event, the same as byte text, place behind the bitmap of NULLs) -> (JSON, place behind the
    # row)`
    Plain: TypeAlias = Callable[[bytes, str, int], tuple[str, int]]
    # `… -> (JSON, key, JSON nulls, place behind the row)`
    Keyed: TypeAlias = Callable[[bytes, str, int], tuple[str, str | None, tuple[str, ...], int]]

# A table has few patterns; so many functions are kept of each kind before all are made anew.
_MOST_PATTERNS = 200
_INTEGERS = {1: "b", 2: "h", 4: "i", 8: "q"}


class CompiledReader:
    """Reads whole row images through generated functions.

    Attributes:
        plain: The functions that make a row's JSON, by the bytes of its bitmap of NULLs.
        keyed: Those that tell its key and its JSON nulls besides.

    Args:
        table: Whose rows.
        zero_dates: As in `values.render`.
    """

    def __init__(self, table: Table, *, zero_dates: bool) -> None:
        self._table = table
        names = _names(table, zero_dates=zero_dates)
        self.plain = _PlainPatterns(table, names)
        self.keyed = _KeyedPatterns(table, names)


class _PlainPatterns(dict[bytes, "Plain"]):
    def __init__(self, table: Table, names: dict[str, object]) -> None:
        super().__init__()
        self._table, self._namespace = table, names

    def __missing__(self, nulls: bytes) -> Plain:
        if len(self) >= _MOST_PATTERNS:
            self.clear()
        function = cast("Plain", _make(self._table, self._namespace, nulls, keyed=False))
        self[nulls] = function
        return function


class _KeyedPatterns(dict[bytes, "Keyed"]):
    def __init__(self, table: Table, names: dict[str, object]) -> None:
        super().__init__()
        self._table, self._namespace = table, names

    def __missing__(self, nulls: bytes) -> Keyed:
        if len(self) >= _MOST_PATTERNS:
            self.clear()
        function = cast("Keyed", _make(self._table, self._namespace, nulls, keyed=True))
        self[nulls] = function
        return function


class _Body:
    """Collects the statements of a function."""

    def __init__(self, names: dict[str, object]) -> None:
        self.lines: list[str] = []
        self.names = names
        self._formats = ""
        self._variables: list[str] = []
        self._structs = 0

    def fixed(self, variable: str, format_: str) -> None:
        """Take a value of fixed size."""
        self._formats += format_
        self._variables.append(variable)

    def prefixed(self, variable: str, width: int, *, data: str) -> None:
        """Take a value of `data` whose length, of so many bytes, stands before it."""
        if width == 3:
            self.fixed("low", "H")
            self.fixed("high", "B")
            self.flush()
            self.lines.append("size = low | high << 16")
        else:
            self.fixed("size", {1: "B", 2: "H", 4: "I", 8: "Q"}[width])
            self.flush()
        self.lines.append(f"{variable} = {data}[at:at + size]")
        self.lines.append("at += size")

    def flush(self) -> None:
        """Write down the run of values of fixed size."""
        if not self._variables:
            return
        struct = Struct("<" + self._formats)
        name = f"unpack{self._structs}"
        self._structs += 1
        self.names[name] = struct.unpack_from
        self.lines.append(f"{', '.join(self._variables)}, = {name}(event, at)")
        self.lines.append(f"at += {struct.size}")
        self._formats, self._variables = "", []


def _names(table: Table, *, zero_dates: bool) -> dict[str, object]:
    """What generated functions refer to."""
    names: dict[str, object] = {
        "number": from_bytes,
        "escaped": encode_basestring,
        "ascii_key": ascii_of_byte_text,
    }
    for index, type_ in enumerate(table.types):
        names[f"type{index}"] = renderer(type_, zero_dates=zero_dates)
        names[f"key{index}"] = renderer(type_, zero_dates=True)
    json_names = {index: table.schema.columns[index].name for index in _json_columns(table)}

    def json_nulls(*found: tuple[int, str]) -> tuple[str, ...]:
        return tuple(json_names[index] for index, text in found if text == "null")

    names["json_nulls"] = json_nulls
    return names


def _make(table: Table, names: dict[str, object], nulls: bytes, *, keyed: bool) -> object:
    """The function for rows with these NULLs."""
    body = _Body(dict(names))
    bits = int.from_bytes(nulls, "little")
    row: list[str | ast.expr] = ["{"]
    key: list[str | ast.expr] = ["{"]
    texts: list[str] = []
    shown: dict[int, str] = {}
    for index, type_ in enumerate(table.types):
        name = table.schema.columns[index].name
        row.append(f"{',' if index else ''}{json_string(name)}:")
        if bits >> index & 1:
            row.append("null")
            shown[index] = "'null'"
            continue
        expression = _take(body, index, type_)
        if keyed and (type_.kind is Kind.JSON or index in table.key):
            # used more than once
            texts.append(f"text{index} = {expression}")
            expression = f"text{index}"
        shown[index] = expression
        row.append(ast.parse(expression, mode="eval").body)
    body.flush()
    row.append("}")
    for place, index in enumerate(table.key):
        name = ascii_json(json.dumps(table.schema.columns[index].name, ensure_ascii=False))
        key.append(f"{',' if place else ''}{name}:")
        expression = shown[index]
        if table.types[index].kind in _UNDATED:
            # a key tells a date that no calendar has, even where the row does not
            expression = f"key{index}(v{index})" if expression != "'null'" else expression
        key.append(ast.parse(expression, mode="eval").body)
    key.append("}")
    lines = ["def generated(event, text, at):", *(f" {line}" for line in (*body.lines, *texts))]
    module = ast.parse("\n".join([*lines, " return None"]))
    result: list[ast.expr] = [fstring(row)]
    if keyed:
        result += [_key_expression(table, key), _nulls_expression(table, shown)]
    result.append(ast.Name("at", ast.Load()))
    returned = next(node for node in ast.walk(module) if isinstance(node, ast.Return))
    returned.value = ast.Tuple(result, ast.Load())
    return define(body.names, module)


_UNDATED = {Kind.DATE, Kind.DATETIME, Kind.TIMESTAMP, Kind.OLD_DATETIME, Kind.OLD_TIMESTAMP}


def _take(body: _Body, index: int, type_: ValueType) -> str:
    """Write the statements that take a value; return the expression of its JSON."""
    variable = f"v{index}"
    if is_utf8(type_) and type_.prefix and not type_.compressed:
        body.prefixed(variable, type_.prefix, data="text")
        return f"escaped({variable})"
    if type_.prefix:
        body.prefixed(variable, type_.prefix, data="event")
        return f"type{index}({variable})"
    if type_.kind is Kind.INTEGER and type_.size in _INTEGERS:
        format_ = _INTEGERS[type_.size]
        body.fixed(variable, format_ if type_.signed else format_.upper())
        return variable
    if type_.kind is Kind.DOUBLE:
        body.fixed(variable, "d")
        return f"{variable}.__repr__()"
    body.fixed(variable, f"{type_.size}s")
    if type_.kind is Kind.INTEGER:
        return f"number({variable}, 'little', signed={type_.signed})"
    return f"type{index}({variable})"


def _key_expression(table: Table, key: list[str | ast.expr]) -> ast.expr:
    if not table.key:
        return ast.Constant(None)
    text = fstring(key)
    if all(table.types[index].kind in _ASCII for index in table.key):
        return text
    return ast.Call(ast.Name("ascii_key", ast.Load()), [text], [])


_ASCII = {Kind.INTEGER, Kind.DECIMAL, Kind.DOUBLE, Kind.BINARY, Kind.UUID, Kind.BIT, *_UNDATED}


def _nulls_expression(table: Table, shown: dict[int, str]) -> ast.expr:
    columns = [index for index in _json_columns(table) if shown[index] != "'null'"]
    if not columns:
        return ast.Tuple([], ast.Load())
    suspect = " or ".join(f"text{index} == 'null'" for index in columns)
    pairs = ", ".join(f"({index}, text{index})" for index in columns)
    return ast.parse(f"json_nulls({pairs}) if {suspect} else ()", mode="eval").body


def _json_columns(table: Table) -> list[int]:
    return [index for index, type_ in enumerate(table.types) if type_.kind is Kind.JSON]
