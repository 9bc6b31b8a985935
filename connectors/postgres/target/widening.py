"""Which types of PostgreSQL hold all values of another one, free of I/O.

Only what the server itself turns into the wider type without a loss and without a choice: the same
number, the same text, the same time. Types are as `format_type` prints them.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

_TYPE = re.compile(
    r"(?P<name>[a-z][a-z ]*?)(?:\((?P<arguments>\d+(?:,-?\d+)?)\))?"
    r"(?P<zone> with(?:out)? time zone)?(?P<array>(?:\[\])*)"
)
_SHORT = {
    "int2": "smallint",
    "int4": "integer",
    "int": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "decimal": "numeric",
    "varchar": "character varying",
    "char": "character",
    "varbit": "bit varying",
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "timetz": "time with time zone",
    "time": "time without time zone",
}
# Decimal digits of the largest value.
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_WHOLE = tuple(_DIGITS)
# Binary floating point numbers that hold each of these whole numbers.
_FLOATING = {
    "smallint": ("real", "double precision"),
    "integer": ("double precision",),
    "real": ("double precision",),
}
# Digits behind the second; without an argument there are six.
_TIMES = frozenset(
    {
        "timestamp without time zone",
        "timestamp with time zone",
        "time without time zone",
        "time with time zone",
        "interval",
    }
)
_MOST_DIGITS = 6


class Widening(Enum):
    """What it costs to turn a column's type into a wider one."""

    IN_PLACE = "in place"
    REWRITE = "rewrite"


class _Type(NamedTuple):
    name: str
    arguments: tuple[int, ...]
    dimensions: bool


def widening(narrow: str, wide: str) -> Widening | None:
    """How a column of one type becomes one of another that holds all of its values.

    Args:
        narrow: The type that the column has.
        wide: The type that it would get.

    Returns:
        None: it is the same type, or not each value would survive unchanged, or the server would
        have to choose.
    """
    old, new = _parsed(narrow), _parsed(wide)
    if old is None or new is None or old == new or old.dimensions != new.dimensions:
        return None
    found = _widening(old, new)
    # The elements of arrays are always looked at one by one.
    return Widening.REWRITE if found and old.dimensions else found


def holds(found: str, wanted: str) -> bool:
    """Whether a column of the type `found` takes every value of the type `wanted`."""
    if found in (wanted, "text", "character varying") or widening(wanted, found) is not None:
        return True
    return _parsed(found) == _parsed(wanted) is not None


def _parsed(text: str) -> _Type | None:
    match = _TYPE.fullmatch(text.lower())
    if match is None:
        return None
    name = f"{match['name']}{match['zone'] or ''}"
    arguments = tuple(int(part) for part in (match["arguments"] or "").split(",") if part)
    if name in ("character", "char", "bit") and not arguments:
        arguments = (1,)
    name = _SHORT.get(name, name)
    if name == "numeric" and len(arguments) == 1:
        arguments = (*arguments, 0)
    if name in _TIMES and not arguments:
        arguments = (_MOST_DIGITS,)
    return _Type(name, arguments, bool(match["array"]))


def _widening(old: _Type, new: _Type) -> Widening | None:
    if old.name in _WHOLE and new.name in _WHOLE:
        wider = _DIGITS[new.name] > _DIGITS[old.name]
        return Widening.REWRITE if wider else None
    if new.name in _FLOATING.get(old.name, ()):
        return Widening.REWRITE
    if new.name == "numeric":
        return _to_numeric(old, new)
    if new.name in ("character varying", "text"):
        return _to_text(old, new)
    if old.name == new.name == "character":
        return Widening.REWRITE if new.arguments > old.arguments else None
    if new.name == "bit varying" and old.name in ("bit", "bit varying"):
        if not _longer(old, new):
            return None
        return Widening.IN_PLACE if old.name == new.name else Widening.REWRITE
    if old.name == new.name and old.name in _TIMES:
        return Widening.IN_PLACE if new.arguments > old.arguments else None
    if old.name == "date" and new.name == "timestamp without time zone":
        return Widening.REWRITE
    return None


def _to_numeric(old: _Type, new: _Type) -> Widening | None:
    if old.name in _WHOLE:
        digits, scale = _DIGITS[old.name], 0
    elif old.name == "numeric" and old.arguments:
        digits, scale = old.arguments[0] - old.arguments[1], old.arguments[1]
    else:
        return None
    if not new.arguments:
        return Widening.IN_PLACE if old.name == "numeric" else Widening.REWRITE
    precision, new_scale = new.arguments
    if new_scale < scale or precision - new_scale < digits:
        return None
    same = old.name == "numeric" and new_scale == scale
    return Widening.IN_PLACE if same else Widening.REWRITE


def _to_text(old: _Type, new: _Type) -> Widening | None:
    if old.name not in ("character", "character varying"):
        return None
    if new.name != "text" and not _longer(old, new):
        return None
    return Widening.IN_PLACE if old.name == "character varying" else Widening.REWRITE


def _longer(old: _Type, new: _Type) -> bool:
    """Whether the length's limit is gone, or at least what it was."""
    if not new.arguments:
        return True
    return bool(old.arguments) and new.arguments >= old.arguments
