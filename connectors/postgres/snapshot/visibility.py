"""What a PostgreSQL snapshot sees.

Format: PostgreSQL documentation, "Transaction ID and Snapshot Information Functions":
`xmin:xmax:xip_list`, 64-bit ids.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from connectors.errors import FatalError

_SNAPSHOT = re.compile(r"(\d+):(\d+):((?:\d+(?:,\d+)*)?)")
_HALF = 1 << 31
_WHOLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Visible:
    """Implements `snapshot.touches.Visibility`.

    Attributes:
        xmin: Every transaction before it has ended.
        xmax: No transaction from it on had begun.
        running: Those between that had not ended.
    """

    xmin: int
    xmax: int
    running: frozenset[int]

    def sees(self, transaction: str) -> bool:
        """Whether a transaction, named by the 32 bits that the log has of its id, had ended."""
        # Ids that are in use lie within 2^31 of one another.
        distance = (int(transaction) - self.xmax) % _WHOLE
        if distance < _HALF:
            return False
        xid = self.xmax + distance - _WHOLE
        return xid < self.xmin or xid not in self.running


def short(xid: str) -> str:
    """The 32 bits that the log has of a transaction's id."""
    return str(int(xid) % _WHOLE)


def parse_visible(text: str) -> Visible:
    """Read a `pg_snapshot`.

    Raises:
        FatalError: `postgres.invalid_snapshot`: it is none.
    """
    match = _SNAPSHOT.fullmatch(text)
    if match is None:
        raise FatalError("postgres.invalid_snapshot", f"not a snapshot: {text[:40]!r}")
    running = frozenset(int(xid) for xid in match[3].split(",") if xid)
    return Visible(int(match[1]), int(match[2]), running)
