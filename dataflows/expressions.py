"""CEL expressions over a change, by cel-expr-python: C++ behind this one module.

An expression sees `op` (a string), `before` and `after` (a row, or null), `source` and `key`, with
the functions of CEL's standard library and of its strings extension. What it looks at is read out
of its syntax tree, so that only these columns are decoded; the fields of `cel.expr.CheckedExpr` are
those of the CEL specification, proto/cel/expr/syntax.proto.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from dataflows.failing import StepError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cel_expr_python import cel

# What an expression looks at of each variable: names of fields; None: the whole of it.
Looks: TypeAlias = "dict[str, frozenset[str] | None]"

_VARIABLES = ("op", "before", "after", "source", "key")
_COMPILER_SAYS = re.compile(r"<input>:(\d+):(\d+): ([^\n]*)")
# What the evaluator says, as far as it holds no value of a row: pattern, code, what we say.
_RUNTIME = (
    (re.compile(r"Key not found in map : \"(.*)\""), "no_such_field", 'there is no field "{0}"'),
    (re.compile(r"Applying SELECT to non-message"), "no_row", "a field of null, or of no map"),
    (re.compile(r"No matching overloads found : (.*)"), "wrong_type", "the types do not fit: {0}"),
    (re.compile(r"Index error"), "no_such_element", "an index is out of range"),
    (re.compile(r"divide by zero|modulus by zero"), "divide_by_zero", "a division by zero"),
    (re.compile(r"out of range"), "out_of_range", "a number does not fit into 64 bits"),
    (re.compile(r"conver"), "cannot_convert", "a value cannot be converted"),
)


class Expression:
    """A compiled expression.

    Args:
        text: As the user wrote it.

    Attributes:
        looks: What it looks at.
        type: The name of its result's type as far as it is known beforehand; `DYN`: it is not.

    Raises:
        ValueError: It is wrong; the message tells line, column and reason.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._compiled = _environment().compile(text)
        except RuntimeError as error:
            raise ValueError(_told(str(error))) from None
        self.type: str = self._compiled.return_type().name()
        self.looks: Looks = {}
        for variable, field in _looked_at(self._compiled.serialize()):
            fields = self.looks.get(variable, frozenset())
            self.looks[variable] = None if field is None or fields is None else fields | {field}

    def evaluate(self, data: Mapping[str, object]) -> object:
        """The value for these variables, which are at least those that it looks at.

        Raises:
            StepError: It has none; the code is without its first word: `no_such_field`.
        """
        value = self._compiled.eval(data=data)
        result: object = value.plain_value()
        # An error is a value too, of the type ERROR; only what is a text needs to be asked.
        if result.__class__ is str and value.type().name() == "ERROR":
            raise _failed(str(result), self.text)
        return result


@cache
def _environment() -> cel.Env:
    """What expressions are compiled in.

    The library is imported here: it takes 10 MB, which a flow without expressions does not pay.
    """
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_strings

    return cel.NewEnv(
        variables={
            "op": cel.Type.STRING,
            "before": cel.Type.DYN,
            "after": cel.Type.DYN,
            "source": cel.Type.DYN,
            "key": cel.Type.DYN,
        },
        extensions=[ext_strings.ExtStrings()],
    )


def _told(text: str) -> str:
    """Line, column and reason of what the compiler says; its picture of the line is left out."""
    found = _COMPILER_SAYS.search(text)
    if found is None:
        return " ".join(text.split())
    line, column, reason = found.groups()
    for noise in (" [INVALID_ARGUMENT]", " (in container '')"):
        reason = reason.removesuffix(noise)
    return f"line {line}, column {column}: {reason}"


def _failed(said: str, expression: str) -> StepError:
    for pattern, code, message in _RUNTIME:
        if found := pattern.search(said):
            # A name that the expression does not hold was computed from the row's values.
            names = [
                name if code == "wrong_type" or name in expression else "…"
                for name in found.groups()
            ]
            return StepError(code, message.format(*names))
    return StepError("failed", "the expression has no value for this change")


def _looked_at(checked: bytes) -> Iterator[tuple[str, str | None]]:
    """Each variable with the field that is asked of it; None where it is used as a whole."""
    # google.protobuf.Any { value = 2 }, CheckedExpr { expr = 4 }
    for value in _messages(checked, 2):
        for expr in _messages(value, 4):
            yield from _walk(expr)


def _walk(expr: bytes) -> Iterator[tuple[str, str | None]]:
    for number, data in _fields(expr):
        if number == 4:  # ident_expr { name = 1 }
            name = _text(data, 1)
            if name in _VARIABLES:
                yield name, None
        elif number == 5:  # select_expr { operand = 1, field = 2 }
            yield from _fields_of(_first(data, 1), _text(data, 2))
        elif number == 6 and _text(data, 2) == "_[_]":  # call_expr { function = 2, args = 3 }
            container, index = _messages(data, 3)
            # const_expr = 3 { string_value = 6 }
            name = _text(_first(index, 3), 6)
            yield from _fields_of(container, name or None)
            yield from _walk(index)
        elif number in (6, 7, 8, 9):  # calls, lists, structs and comprehensions hold more of them
            yield from _inside(number, data)


def _fields_of(container: bytes, field: str | None) -> Iterator[tuple[str, str | None]]:
    variable = _text(_first(container, 4), 1)
    if variable in _VARIABLES:
        yield variable, field
    else:
        yield from _walk(container)


# Where expressions stand: call_expr { target, args }, list_expr { elements }, comprehension_expr
# { iter_range, accu_init, loop_condition, loop_step, result }.
_INSIDE = {6: (1, 3), 7: (1,), 9: (2, 4, 5, 6, 7)}


def _inside(number: int, data: bytes) -> Iterator[tuple[str, str | None]]:
    if number == 8:  # struct_expr { entries = 2 { map_key = 3, value = 4 } }
        for entry in _messages(data, 2):
            for part in (3, 4):
                yield from _walk(_first(entry, part))
        return
    for part in _INSIDE[number]:
        for expr in _messages(data, part):
            yield from _walk(expr)


def _messages(data: bytes, wanted: int) -> list[bytes]:
    return [value for number, value in _fields(data) if number == wanted]


def _first(data: bytes, wanted: int) -> bytes:
    return next(iter(_messages(data, wanted)), b"")


def _text(data: bytes, wanted: int) -> str:
    return _first(data, wanted).decode()


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message; others hold nothing of interest here."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(data, position)
        elif kind == 2:
            size, position = _varint(data, position)
            yield tag >> 3, data[position : position + size]
            position += size
        else:
            position += 8 if kind == 1 else 4


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
