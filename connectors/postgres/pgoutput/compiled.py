r"""Row changes to JSON, the fast way: one generated function a table splices the log's bytes.

A tuple in which every value is text shorter than 256 bytes is cut by a single
`split("t\0\0\0")`: the mark of a text value and the three high bytes of its length. A value
never holds a NUL, so this occurs at the head of each such value and nowhere else: the number of
pieces tells whether the tuple has this shape. Each piece is the low byte of the length, then the
value. Tuples of any other shape (NULL, unchanged TOAST, longer values) are brought to that form,
with an object in place of each absent value.

Generated functions are built as syntax trees: names of columns only ever appear in them as
constants, never as source text.

What comes out equals what `rows.ExactReader` makes of the same message.
"""

from __future__ import annotations

import ast
import json
from binascii import a2b_hex, b2a_base64
from functools import partial
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, TypeAlias, cast

from connectors.codegen import call, define, expression, fstring
from connectors.json_text import ascii_json, ascii_of_byte_text, byte_text
from connectors.postgres.pgoutput.codegen import function
from connectors.postgres.pgoutput.messages import UNCHANGED
from connectors.postgres.pgoutput.parser import malformed
from connectors.postgres.pgoutput.rows import (
    UNAVAILABLE_JSON,
    ExactReader,
    fill,
    key_unavailable,
    missing,
    unreadable,
)
from connectors.postgres.pgoutput.streaming import XLOG_HEADER_SIZE
from connectors.postgres.pgoutput.types import Kind
from connectors.postgres.pgoutput.values import is_json_null, render
from connectors.row_image import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from connectors.postgres.pgoutput.messages import Value
    from connectors.postgres.pgoutput.table import Table
    from connectors.postgres.pgoutput.types import ValueType

    Splice: TypeAlias = Callable[
        [list[str], str, int, str, int | str], tuple[bytes, str | None, tuple[str, ...]]
    ]
    Render: TypeAlias = Callable[[Sequence[Value]], str]

# What a tuple of short texts is split at.
SHORT = "t\0\0\0"
# Where the first value lies: frame header, message type, relation oid, tuple mark, column count.
FIRST_VALUE = XLOG_HEADER_SIZE + 8

_PIECE = "c"  # with an index, the name of a value's piece
# Types and marks of the messages that hold an old tuple.
_WITH_OLD = ("UK", "UO", "DK", "DO")
# Stands among the pieces between the old tuple and the new one; no piece is empty.
_NEW = ""

# How a value becomes JSON: text before, expression, text after. `{p}` is the variable with the
# piece; `{t}` the type's own function.
_PIECES = {
    Kind.INTEGER: ("", "{p}[1:]", ""),
    Kind.JSON: ("", "{p}[1:]", ""),
    Kind.FLOAT: ("", "{p}[1:] if {p}[-1] < ':' else {t}({p}[1:])", ""),
    Kind.BOOLEAN: ("", "booleans[{p}]", ""),
    Kind.PLAIN: ('"', "{p}[1:]", '"'),
    Kind.TEXT: ("", "quote({p}[1:])", ""),
    Kind.TIMESTAMP: (
        "",
        "f'\"{{{p}[1:11]}}T{{{p}[12:]}}\"'"
        " if {p}[11:12] == ' ' and {p}[-1] < ':' else {t}({p}[1:])",
        "",
    ),
    Kind.TIMESTAMPTZ: (
        "",
        "f'\"{{{p}[1:11]}}T{{{p}[12:-3]}}Z\"'"
        " if {p}[-3:] == '+00' and {p}[11] == ' ' else {t}({p}[1:])",
        "",
    ),
    Kind.BYTEA: ('"', "base64({p}[1:])", '"'),
    Kind.ARRAY: ("", "{t}({p}[1:])", ""),
}
# How the text of a JSON null may end. Hardly another value does: objects, arrays, strings, numbers
# and booleans end otherwise, unless white space follows, which only the type json keeps.
_NULL_ENDS = "l \t\n\r"
# Values of these kinds are ASCII, whatever they are.
_ASCII = {
    Kind.INTEGER,
    Kind.FLOAT,
    Kind.BOOLEAN,
    Kind.PLAIN,
    Kind.TIMESTAMP,
    Kind.TIMESTAMPTZ,
    Kind.BYTEA,
}


class CompiledReader:
    """Reads row changes through generated functions.

    Attributes:
        splice: `(pieces, middle, lsn, tail, order) -> (envelope, key, json_nulls)`: the whole
            envelope of a change that has no `before`, its key and its JSON nulls, from a tuple
            split at `SHORT` into one piece more than the table has columns. The envelope is
            `{"before":null,"after":{...}<middle><lsn><tail><order>}}`.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._columns = len(table.types)
        self._count = chr(self._columns >> 8) + chr(self._columns & 0xFF)
        everything = range(self._columns)
        names = _names(table)
        self.splice = cast("Splice", define(names, _splice_function(table)))
        self._row = cast("Render", define(names, _object_function(table, everything)))
        self._identity = cast("Render", define(names, _object_function(table, table.identity)))
        self._key = cast("Render", define(names, _object_function(table, table.key)))
        self._json_nulls = _json_nulls_of(table)

    def read(self, frame: bytes | memoryview) -> Image:
        """As `RowReader.read`."""
        data = frame[XLOG_HEADER_SIZE:]
        head, columns = str(data[:8], "latin-1"), self._columns
        kind, mark = head[:1], head[5:6]
        try:
            if head[6:] != self._count:
                raise malformed(data, "its row has another number of columns than its table")
            pieces = self._pieces(data)
            if mark == "N" and kind in "IU" and len(pieces) == columns and _NEW not in pieces:
                return self._image("null", pieces)
            old, new = pieces[:columns], pieces[columns + 1 :]
            whole = len(pieces) == (columns if kind == "D" else 2 * columns + 1)
            if kind + mark not in _WITH_OLD or not whole or pieces.count(_NEW) != (kind == "U"):
                raise malformed(data, f"its {len(pieces)} values make no rows")
            if kind == "U" and pieces[columns] != _NEW:
                raise malformed(data, "its rows differ in their columns")
            before = self._identity(old) if mark == "K" else self._row(old)
            if kind == "D":
                return Image(before, "null", self._key_of(old), (), ())
            return self._image(before, fill(new, old) if UNCHANGED in new else new)
        except (IndexError, KeyError, ValueError):
            raise unreadable(self._table, frame) from None

    def stored(self, values: Sequence[str | None]) -> Image:
        """As `RowReader.stored`."""
        # In a message a value stands behind the low byte of its length.
        row = [None if value is None else f"{chr(len(value) & 0xFF)}{value}" for value in values]
        try:
            return self._image("null", row)
        except (IndexError, KeyError, ValueError):
            return ExactReader(self._table).stored(values)

    def _image(self, before: str, new: Sequence[Value]) -> Image:
        unavailable = missing(self._table, new) if UNCHANGED in new else ()
        return Image(before, self._row(new), self._key_of(new), unavailable, self._json_nulls(new))

    def _key_of(self, row: Sequence[Value]) -> str | None:
        if not self._table.key:
            return None
        if UNCHANGED in row and any(row[index] is UNCHANGED for index in self._table.key):
            raise key_unavailable(self._table)
        return ascii_of_byte_text(self._key(row))

    def _pieces(self, data: bytes | memoryview) -> list[Value]:
        """Cut the one or two tuples of a message into pieces, whatever their shape.

        Returns:
            The values of both, with `_NEW` between them; a text as the low byte of its length and
            the text.
        """
        pieces = str(data[8:], "latin-1").split(SHORT)
        values: list[Value] = []
        self._marks(data, pieces[0], values)
        for piece in pieces[1:]:
            size = ord(piece[0]) + 1
            if len(piece) == size:
                values.append(piece)
            else:
                values.append(piece[:size])
                if len(piece) < size:
                    raise malformed(data, "it is too short")
                self._marks(data, piece[size:], values)
        return values

    def _marks(self, data: bytes | memoryview, text: str, values: list[Value]) -> None:
        """Take what stands between short values: absent and long ones, the head of a new row."""
        position = 0
        while position < len(text):
            mark = text[position]
            position += 1
            if mark == "n":
                values.append(None)
            elif mark == "u":
                values.append(UNCHANGED)
            elif mark == "t":
                start = position + 4
                position = start + int.from_bytes(text[position:start].encode("latin-1"), "big")
                if position > len(text):
                    raise malformed(data, "it is too short")
                values.append(text[start - 1 : position])
            elif mark == "N" and text[position : position + 2] == self._count:
                values.append(_NEW)
                position += 2
            else:
                raise malformed(data, f"a value marked {mark!r}")


def _splice_function(table: Table) -> ast.Module:
    variables = [f"{_PIECE}{index}" for index in range(len(table.types))]
    envelope: list[str | ast.expr] = ['{"before":null,"after":']
    envelope += _object(table, range(len(table.types)), _piece)
    envelope += [expression(name) for name in ("middle", "lsn", "tail", "order")]
    envelope.append("}}")
    encode = call(ast.Attribute(fstring(envelope), "encode", ast.Load()), ast.Constant("latin-1"))
    key: ast.expr = ast.Constant(None)
    if table.key:
        key = fstring(_object(table, table.key, _piece, ascii_names=True))
        if any(table.types[index].kind not in _ASCII for index in table.key):
            key = call(ast.Name("ascii_key", ast.Load()), key)
    json_nulls = expression("()")
    if columns := _json_columns(table):
        suspect = " or ".join(
            # behind its length, or the mark that values of a table's own rows have instead
            f"{_PIECE}{index} in ('\\4null', '\\1null')"
            if table.types[index].name == "jsonb"
            else f"{_PIECE}{index}[-1] in {_NULL_ENDS!r}"
            for index in columns
        )
        json_nulls = expression(f"json_nulls([{', '.join(variables)}]) if {suspect} else ()")
    result = ast.Tuple([encode, key, json_nulls], ast.Load())
    return function(["pieces", "middle", "lsn", "tail", "order"], ["_", *variables], result)


def _object_function(table: Table, indexes: Iterable[int]) -> ast.Module:
    variables = [f"{_PIECE}{index}" for index in range(len(table.types))]
    return function(["pieces"], variables, fstring(_object(table, indexes, _piece_or_absent)))


def _object(
    table: Table,
    indexes: Iterable[int],
    value: Callable[[int, ValueType], list[str | ast.expr]],
    *,
    ascii_names: bool = False,
) -> list[str | ast.expr]:
    parts: list[str | ast.expr] = ["{"]
    for place, index in enumerate(indexes):
        name = table.schema.columns[index].name
        quoted = json.dumps(name, ensure_ascii=False)
        quoted = ascii_json(quoted) if ascii_names else byte_text(quoted)
        parts.append(f"{',' if place else ''}{quoted}:")
        parts += value(index, table.types[index])
    parts.append("}")
    return parts


def _piece(index: int, type_: ValueType) -> list[str | ast.expr]:
    before, template, after = _PIECES[type_.kind]
    source = template.format(p=f"{_PIECE}{index}", t=f"type{index}")
    return [before, expression(source), after]


def _piece_or_absent(index: int, type_: ValueType) -> list[str | ast.expr]:
    name = f"{_PIECE}{index}"
    choice = expression(f"None if {name}.__class__ is str else absent[{name}]")
    if isinstance(choice, ast.IfExp):
        choice.body = fstring(_piece(index, type_))
    return [choice]


def _names(table: Table) -> dict[str, object]:
    """The names that generated functions refer to."""
    names: dict[str, object] = {
        "quote": encode_basestring,
        "base64": _base64,
        "ascii_key": ascii_of_byte_text,
        "booleans": {"\1t": "true", "\1f": "false"},
        "absent": {None: "null", UNCHANGED: UNAVAILABLE_JSON},
        "str": str,
        "json_nulls": _json_nulls_of(table),
    }
    for index, type_ in enumerate(table.types):
        names[f"type{index}"] = _type_function(type_)
    return names


def _json_columns(table: Table) -> list[int]:
    return [index for index, type_ in enumerate(table.types) if type_.kind is Kind.JSON]


def _json_nulls_of(table: Table) -> Callable[[Sequence[Value]], tuple[str, ...]]:
    """What names the columns whose piece is the JSON null."""
    columns = [(index, table.schema.columns[index].name) for index in _json_columns(table)]

    def json_nulls(pieces: Sequence[Value]) -> tuple[str, ...]:
        found: tuple[str, ...] = ()
        for index, name in columns:
            piece = pieces[index]
            if isinstance(piece, str) and piece[-1] in _NULL_ENDS and is_json_null(piece[1:]):
                found += (name,)
        return found

    return json_nulls if columns else lambda _: ()


def _type_function(type_: ValueType) -> Callable[[str], str]:
    """What renders a value that is not in its type's usual form."""
    if type_.element is not None and type_.element.kind is Kind.INTEGER:
        return _integers
    if type_.element is not None and type_.element.kind in (Kind.PLAIN, Kind.TEXT):
        return partial(_strings, type_)
    return partial(render, type_=type_)


def _integers(text: str) -> str:
    """An array of integers: nothing in it is quoted."""
    if text[0] == "[":
        text = text[text.index("=") + 1 :]
    return text.replace("{", "[").replace("}", "]").replace("NULL", "null")


def _strings(type_: ValueType, text: str) -> str:
    """An array of strings, at once if it has one dimension and neither quotes nor NULL."""
    if text[0] != "{" or '"' in text or "{" in text[1:] or "NULL" in text or text == "{}":
        return render(text, type_)
    return "[" + encode_basestring(text[1:-1]).replace(type_.delimiter, '","') + "]"


def _base64(text: str) -> str:
    if text[:2] != "\\x":
        raise ValueError("bytea_output is not hex")
    return b2a_base64(a2b_hex(text[2:]), newline=False).decode()
