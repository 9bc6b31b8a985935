"""What a snapshot of a MySQL or MariaDB server sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from connectors.mysql.binlog.gtids import parse_gtid_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.changes import Change
    from connectors.mysql.binlog.gtids import MariadbGtids, MysqlGtids

# More transactions than a snapshot remembers between two blocks.
_MOST_PLACES = 250_000
_parse = lru_cache(maxsize=4096)(parse_gtid_text)


@dataclass(frozen=True, slots=True)
class SeenGtids:
    """Implements `snapshot.touches.Visibility` by GTIDs.

    Attributes:
        gtids: Transactions that are in the snapshot for certain; it may hold others as well.
    """

    gtids: MysqlGtids | MariadbGtids

    def sees(self, transaction: str) -> bool:
        """Whether a transaction, named by its GTID, is in it for certain."""
        return _parse(transaction) in self.gtids


class Places:
    """Where the transactions that were given out begin in the log.

    MariaDB tells a snapshot's place at once, but looks through a whole file for the GTIDs before
    it. Used by one thread, but for `moved`.

    Attributes:
        moved: Whether the log of another server was read before, whose places say nothing here.
    """

    def __init__(self) -> None:
        self.moved = False
        self._generation = ""
        self._places: dict[str, int] = {}

    def note(self, changes: Iterable[Change]) -> None:
        """These are given out."""
        last = ""
        for change in changes:
            if change.transaction != last:
                last = change.transaction
                self._note(last, change.position)

    def is_before(self, transaction: str, place: int) -> bool:
        """Whether a transaction is known to begin before a place in the log."""
        begin = self._places.get(transaction)
        return begin is not None and begin < place

    def _note(self, transaction: str, position: str) -> None:
        generation, file, offset, _ = position.split("-")
        if generation != self._generation:
            self.moved = bool(self._generation)
            self._generation = generation
            self._places.clear()
        if len(self._places) >= _MOST_PLACES:
            # The oldest; what is not known counts as not seen.
            del self._places[next(iter(self._places))]
        self._places[transaction] = int(file, 16) << 48 | int(offset, 16)


@dataclass(frozen=True, slots=True)
class SeenPlace:
    """Implements `snapshot.touches.Visibility` by a place in the log.

    Attributes:
        place: All transactions that begin before it are in the snapshot, and no others.
        places: Knows where they begin.
        gtids: The last transactions before the place, where that was asked for.
    """

    place: int
    places: Places
    gtids: MariadbGtids | None = None

    def sees(self, transaction: str) -> bool:
        """Whether a transaction, named by its GTID, is in it."""
        if self.places.is_before(transaction, self.place):
            return True
        return self.gtids is not None and _parse(transaction) in self.gtids
