"""XA transactions, whose changes count only once they are committed, maybe much later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from connectors.mysql.binlog import events as ev
from connectors.mysql.binlog.gtids import MariadbGtids

if TYPE_CHECKING:
    from connectors.mysql.binlog.events import Gtid
    from connectors.mysql.binlog.progress import Progress
    from connectors.mysql.binlog.row_events import RowEvents
    from connectors.mysql.binlog.statements import Statement
    from connectors.mysql.binlog.transaction import Transaction
    from connectors.mysql.binlog.transactions import Transactions

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class XaTransactions:
    """Holds what prepared transactions did, until they are committed or rolled back.

    Args:
        source: The source's name.
        transactions: Knows the open one.
        rows: Decodes what was held.
        progress: What is complete; a prepared transaction is not.
    """

    def __init__(
        self, source: str, transactions: Transactions, rows: RowEvents, progress: Progress
    ) -> None:
        self._source = source
        self._transactions, self._rows, self._progress = transactions, rows, progress
        self._prepared: dict[str, tuple[Gtid, list[bytes]]] = {}

    def statement(self, transaction: Transaction, statement: Statement) -> None:
        """An XA statement of the open transaction."""
        word, identifier = statement.names
        if word == "START" or word == "BEGIN":
            transaction.block = True
            transaction.xa = transaction.xa or identifier
        elif word in ("COMMIT", "ROLLBACK"):
            self._end(transaction, transaction.begin.completed or identifier, word == "COMMIT")

    def prepare(self, event: bytes, _: int) -> None:
        """What an XA transaction did is known; a flag tells that it is committed as well."""
        transaction = self._transactions.inside(event)
        kept, xa = transaction.kept, transaction.xa
        if not transaction.skipped:
            if event[ev.HEADER_SIZE]:
                self._rows.replay(transaction, kept)
            else:
                gtid = transaction.begin.gtid
                self._prepared[xa] = (gtid, kept)
                if gtid in self._progress.held:
                    # read again after a restart
                    self._transactions.leave()
                    return
                seen = self._progress.seen
                before = seen.last(gtid) if isinstance(seen, MariadbGtids) else None
                self._progress.held[gtid] = before
        self._transactions.end()

    def _end(self, transaction: Transaction, xa: str, committed: bool) -> None:
        gtid, kept = self._prepared.pop(xa, (None, []))
        if not transaction.skipped:
            if gtid is None:
                _log.warning(
                    "an XA transaction that was prepared before capturing began is left out",
                    source=self._source,
                    transaction=transaction.stamp.gtid,
                )
            elif committed:
                self._rows.replay(transaction, kept)
        if gtid is not None:
            self._progress.held.pop(gtid, None)
        self._transactions.end()
