"""The transaction that a decoder is in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.mysql.binlog.envelope import Stamp
    from connectors.mysql.binlog.events import Begin

# More than any transaction has.
EVERYTHING = 1 << 62


@dataclass(slots=True)
class Transaction:
    """What is known of it so far.

    Attributes:
        begin: Its GTID event.
        stamp: For the envelopes of its changes.
        prefix: Of its changes' positions.
        floor: How many of its changes are not wanted, because they are stored already.
        offset: Where it begins in its file.
        block: True once it is known to end with an event of its own, not with its first statement.
        order: How many captured changes were seen.
        savepoints: How many there were at each.
        xa: The XA transaction that it prepares; empty: none.
        kept: The events about rows of that one, until it is known whether it is committed.
    """

    begin: Begin
    stamp: Stamp
    prefix: str
    floor: int
    offset: int
    block: bool
    order: int = 0
    savepoints: dict[str, int] = field(default_factory=dict)
    xa: str = ""
    kept: list[bytes] = field(default_factory=list)

    @property
    def skipped(self) -> bool:
        """True when none of its changes is wanted."""
        return self.floor == EVERYTHING
