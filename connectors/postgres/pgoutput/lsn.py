"""Positions in the write-ahead log: as text, as a number, in a checkpoint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from connectors.errors import FatalError

if TYPE_CHECKING:
    from connectors.contracts.source import Checkpoint

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> int:
    """The number that `X/X` stands for (PostgreSQL's `pg_lsn`).

    Raises:
        FatalError: `postgres.invalid_lsn`: not an LSN.
    """
    match = _LSN.fullmatch(text)
    if match is None:
        raise FatalError("postgres.invalid_lsn", f"not a position in the log: {text[:40]!r}")
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    """`X/X`, as PostgreSQL prints a `pg_lsn`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def stored_lsn(checkpoint: Checkpoint) -> int:
    """The position that a checkpoint confirms.

    Raises:
        FatalError: `postgres.invalid_checkpoint`: it is not one of this source type.
    """
    lsn = checkpoint.state.get("lsn")
    if lsn is None or "system" not in checkpoint.state:
        raise FatalError(
            "postgres.invalid_checkpoint",
            f"a state of {sorted(checkpoint.state)} instead of lsn and system",
            cure="the stream's checkpoint was not written by a PostgreSQL source",
        )
    return parse_lsn(lsn)
