"""Where a change stands: failover generation, file, offset of its transaction, row in it.

As text `GGGG-FFFFFFFF-OOOOOOOOOOOO-RRRRRRRR` in hexadecimal digits, which sorts like the log. The
file is the number at the end of its name, the offset that of the transaction's GTID event, the row
counts the captured changes of the transaction from 0. The generation rises with each change of
server, because files and offsets of one server say nothing on another.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from connectors.errors import FatalError

# More changes than that in one transaction would not fit into a position.
LARGEST_TRANSACTION = 1 << 32
_OFFSET_BITS = 48
_POSITION = re.compile(r"([0-9A-F]{4})-([0-9A-F]{8})-([0-9A-F]{12})-([0-9A-F]{8})")
_FILE = re.compile(r"(.+)\.([0-9]+)", re.DOTALL)


class Place(NamedTuple):
    """A position's parts."""

    generation: int
    file: int
    offset: int
    row: int


def prefix(generation: int, file: int, offset: int) -> str:
    """The part of a position that the changes of a transaction share."""
    return f"{generation:04X}-{file:08X}-{offset:012X}-"


def parse_position(position: str) -> Place | None:
    """Read a position; None for the empty one.

    Raises:
        FatalError: `mysql.invalid_checkpoint`.
    """
    if not position:
        return None
    match = _POSITION.fullmatch(position)
    if match is None:
        raise FatalError(
            "mysql.invalid_checkpoint",
            f"not a position of a MySQL source: {position[:60]!r}",
            cure="give the source a name whose stream no other kind of source has written",
        )
    return Place(*(int(part, 16) for part in match.groups()))


def log_place(file: str, offset: int) -> int:
    """A place in the log of one server as a number; later places are larger.

    Raises:
        FatalError: `mysql.file_name`.
    """
    return split_file(file)[1] << _OFFSET_BITS | offset


def numbered(position: str) -> int:
    """Where the transaction of a change begins, as `log_place` counts it."""
    _, file, offset, _ = position.split("-")
    return int(file, 16) << _OFFSET_BITS | int(offset, 16)


def split_file(name: str) -> tuple[str, int]:
    """A log file's base name and number.

    Raises:
        FatalError: `mysql.file_name`: it does not end with a number.
    """
    match = _FILE.fullmatch(name)
    if match is None:
        raise FatalError("mysql.file_name", f"a binary log named {name[:60]!r}")
    return match[1], int(match[2])
