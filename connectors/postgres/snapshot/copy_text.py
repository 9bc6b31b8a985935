r"""Rows as `COPY ... TO STDOUT` sends them, cut into values.

Format: PostgreSQL documentation, COPY, "Text Format": values between tabs, `\N` for NULL, a
backslash before what would else be taken for something else. Values are what the types' output
functions print, as in the log. Lines and values are byte text (see `json_text`).
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# What stands before each value, where a message of the log has the low byte of its length; that of
# a boolean, which is looked up together with it.
LEAD = "\1"
_SEPARATOR = "\t" + LEAD


def pieces(line: str) -> list[str]:
    """The values of a line without backslashes, each behind a `LEAD`; before them one more piece.

    This is the shape that `CompiledReader.splice` takes.
    """
    return (_SEPARATOR + line.replace("\t", _SEPARATOR)).split("\t")


def values(line: str) -> list[str | None]:
    """The values of any line; None for NULL."""
    return [None if value == "\\N" else unescaped(value) for value in line.split("\t")]


def at(line: str, places: tuple[int, ...]) -> tuple[str, ...]:
    """The values at these places, none of them NULL, as text."""
    found = line.split("\t")
    return tuple(unescaped(found[place]).encode("latin-1").decode() for place in places)


def unescaped(value: str) -> str:
    """A value as it was before it was escaped."""
    return _ESCAPED.sub(_character, value) if "\\" in value else value


def _character(match: re.Match[str]) -> str:
    return _CONTROLS.get(match[1], match[1])
