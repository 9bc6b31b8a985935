r"""Rows as `COPY ... TO STDOUT` sends them, cut into values.

Format: PostgreSQL documentation, COPY, "Text Format": values between tabs, `\N` for NULL, a
backslash before what would else be taken for something else. Values are what the types' output
functions print, as in the log. Lines and values are byte
text (see `json_text`).
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# What stands before each value: a tab, and what is in the place of the low byte of its length in a
# message of the log; that of a boolean, which is looked up together with it.
_LEAD = "\t\1"


def lines(data: bytes) -> list[str]:
    """The rows in the data of a COPY, as the other functions here take them.

    Split at tabs, a line is what `CompiledReader.splice` takes, if it has no backslashes.
    """
    text = str(data, "latin-1").replace("\t", _LEAD).replace("\n", f"\n{_LEAD}")
    found = f"{_LEAD}{text}".split("\n")
    # What stands behind the last line's end.
    found.pop()
    return found


def values(line: str) -> list[str | None]:
    """The values of any line; None for NULL."""
    return [None if piece == "\1\\N" else unescaped(piece[1:]) for piece in line.split("\t")[1:]]


def at(line: str, places: tuple[int, ...]) -> tuple[str, ...]:
    """The values at these places, none of them NULL, as text."""
    found = line.split("\t")
    return tuple(unescaped(found[place + 1][1:]).encode("latin-1").decode() for place in places)


def unescaped(value: str) -> str:
    """A value as it was before it was escaped."""
    return _ESCAPED.sub(_character, value) if "\\" in value else value


def _character(match: re.Match[str]) -> str:
    return _CONTROLS.get(match[1], match[1])
