"""What a snapshot of a MySQL or MariaDB server sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from connectors.mysql.binlog.gtids import parse_gtid_text
from connectors.mysql.binlog.position import numbered
from connectors.mysql.binlog.progress import parse_resume

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint
    from connectors.mysql.binlog.gtids import MysqlGtids

# More transactions than a snapshot remembers between two blocks.
_MOST_PLACES = 250_000
_parse = lru_cache(maxsize=4096)(parse_gtid_text)


@dataclass(frozen=True, slots=True)
class SeenGtids:
    """Implements `snapshot.touches.Visibility` by GTIDs, for MySQL.

    Attributes:
        gtids: Transactions that are in the snapshot for certain; it may hold others as well.
    """

    gtids: MysqlGtids

    def sees(self, transaction: str) -> bool:
        """Whether a transaction, named by its GTID, is in it for certain."""
        return _parse(transaction) in self.gtids


class Places:
    """Where the transactions that were given out begin in the log that is read.

    MariaDB tells a snapshot's place at once, but looks through a whole file for the GTIDs before
    it. Used by one thread, but for its attributes.

    Attributes:
        server: The identity of the server whose log it is.
        horizon: What was given out and is not known here begins before this place: what earlier
            processes have given out, or another server's log, lies before its end at the start.
        reached: Up to which place the log is read.
        stored: The GTIDs of which something was given out before tables are read, as MySQL has
            them; empty where the start has seen to it that all are committed, and on MariaDB.
    """

    def __init__(self) -> None:
        self.server = ""
        self.horizon = self.reached = 0
        self.stored = ""
        self._last: Checkpoint | None = None
        self._places: dict[str, int] = {}

    def follow(self, server: str, log_end: int) -> None:
        """The log of a server is read from now on.

        Args:
            server: Its identity.
            log_end: Where the log ended, once it was known to hold all that was given out.
        """
        self._places.clear()
        self.horizon, self.server, self.stored = log_end, server, ""
        self.reached, self._last = 0, None

    def proceed(self, reached: int, last: Checkpoint) -> None:
        """The log is read up to a place, and given out up to a checkpoint."""
        self.reached, self._last = reached, last

    def restart(self, *, mariadb: bool) -> None:
        """Tables are read from now on, and what is given out is noted again."""
        self._places.clear()
        self.horizon = max(self.horizon, self.reached)
        if self._last is not None and not mariadb:
            self.stored = str(parse_resume(self._last).stored(mariadb=False))

    def note(self, changes: Iterable[Change]) -> None:
        """These are given out."""
        last = ""
        for change in changes:
            if change.transaction != last:
                last = change.transaction
                self._note(last, change.position)

    def is_before(self, transaction: str, place: int) -> bool:
        """Whether a transaction that was given out begins before a place in the log."""
        begin = self._places.get(transaction)
        return self.horizon <= place if begin is None else begin < place

    def _note(self, transaction: str, position: str) -> None:
        if len(self._places) >= _MOST_PLACES:
            oldest = next(iter(self._places))
            self.horizon = max(self.horizon, self._places.pop(oldest) + 1)
        self._places[transaction] = numbered(position)


@dataclass(frozen=True, slots=True)
class SeenPlace:
    """Implements `snapshot.touches.Visibility` by a place in the log, for MariaDB.

    Attributes:
        place: All transactions that begin before it are in the snapshot, and no others.
        places: Knows where they begin.
    """

    place: int
    places: Places

    def sees(self, transaction: str) -> bool:
        """Whether a transaction, named by its GTID, is in it."""
        return self.places.is_before(transaction, self.place)
