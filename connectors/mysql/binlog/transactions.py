"""Where the transactions of a log begin and end, and which of them are wanted.

A transaction is wanted when its GTID is not in the set of what is complete: files and offsets order
the changes of one server, but only GTIDs tell what was stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.mysql.binlog import events as ev
from connectors.mysql.binlog import refusals
from connectors.mysql.binlog.envelope import Stamp
from connectors.mysql.binlog.gtids import MariadbGtids
from connectors.mysql.binlog.position import prefix
from connectors.mysql.binlog.progress import Spot
from connectors.mysql.binlog.transaction import EVERYTHING, Transaction

if TYPE_CHECKING:
    from connectors.mysql.binlog.chunks import ChunkBuffer
    from connectors.mysql.binlog.events import Begin
    from connectors.mysql.binlog.gtids import MysqlGtids
    from connectors.mysql.binlog.log_place import LogPlace
    from connectors.mysql.binlog.progress import Progress, Resume


class Transactions:
    """Follows a log from transaction to transaction.

    Args:
        place: Where the log is being read.
        buffer: Takes the changes.
        progress: What is complete.
        resume: From where reading goes on.
        generation: Of the server.
        mariadb: Which kind of server it is.

    Attributes:
        open: The transaction that is being read, if any.
    """

    def __init__(
        self,
        place: LogPlace,
        buffer: ChunkBuffer,
        progress: Progress,
        resume: Resume,
        *,
        generation: int,
        mariadb: bool,
    ) -> None:
        self.open: Transaction | None = None
        self._place, self._buffer, self._progress = place, buffer, progress
        self._generation = generation
        # MariaDB sends nothing twice, unless it is asked to begin before a transaction that is
        # held; its numbers alone do not tell what was seen, because they may go back.
        self._seen: MysqlGtids | MariadbGtids = progress.seen
        if mariadb:
            self._seen = resume.seen(mariadb=True) if resume.held else MariadbGtids()

    def begin(self, begin: Begin, event: bytes) -> None:
        """A transaction begins with this event."""
        place = self._place
        if self.open is not None:
            raise refusals.out_of_place("a transaction inside a transaction", str(place))
        place.advance(event)
        offset, gtid = place.start, begin.gtid
        floor = self._progress.partial.get(gtid, 0)
        if not floor and gtid in self._seen and gtid not in self._progress.held:
            floor = EVERYTHING
        mariadb = event[4] == ev.MARIADB_GTID
        server = int.from_bytes(event[5:9], "little")
        self.open = Transaction(
            begin,
            Stamp(f"{gtid.source}{gtid.number}", begin.committed_ms, server, place.file),
            prefix(self._generation, place.number, offset),
            floor,
            offset,
            block=mariadb and not begin.standalone,
            xa=begin.prepared,
        )
        self._buffer.begin(Spot(place.number, offset, gtid))

    def inside(self, event: bytes) -> Transaction:
        """The open transaction; an event that belongs into one is an error outside."""
        if self.open is None:
            what = f"an event of type {event[4]} outside a transaction"
            raise refusals.out_of_place(what, str(self._place))
        return self.open

    def end(self) -> None:
        """The open transaction is complete."""
        if self.open is not None and not self.open.skipped:
            self._buffer.commit(self._place.file, stored=self.open.floor > 0)
        self.open = None

    def end_unless_block(self) -> None:
        """A statement is over, and with it the transaction that consists of nothing else."""
        if self.open is not None and not self.open.block:
            self.end()

    def leave(self) -> None:
        """Go on behind the open transaction, which is not complete."""
        self.open = None

    def abandon(self) -> None:
        """Forget a transaction that a crash of the server left torn at the end of a file."""
        if self.open is None:
            return
        if self._buffer.cut_off:
            raise refusals.torn_transaction(self.open.stamp.gtid, str(self._place))
        self._buffer.undo(0)
        self.open = None

    def undo(self, transaction: Transaction, order: int) -> None:
        """Take the changes behind the first `order` of the open transaction back."""
        if transaction.skipped:
            return
        kept = max(order - transaction.floor, 0)
        if self._buffer.cut_off:
            raise refusals.late_rollback(transaction.stamp.gtid, str(self._place))
        self._buffer.undo(kept)
        transaction.order = order
