"""The statements of a log: the ends of transactions, DDL, and what is not logged as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from connectors.mysql.binlog import refusals
from connectors.mysql.binlog.events import parse_query
from connectors.mysql.binlog.payload import uncompressed_query
from connectors.mysql.binlog.statements import What, classify

if TYPE_CHECKING:
    from connectors.mysql.binlog.ddl_events import DdlEvents
    from connectors.mysql.binlog.events import Query
    from connectors.mysql.binlog.log_place import LogPlace
    from connectors.mysql.binlog.row_events import RowEvents
    from connectors.mysql.binlog.tables import Tables
    from connectors.mysql.binlog.transaction import Transaction
    from connectors.mysql.binlog.transactions import Transactions
    from connectors.mysql.binlog.xa import XaTransactions

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Queries:
    """Does what the statements of a log mean.

    Args:
        source: The source's name.
        place: Where the log is being read.
        transactions: Knows the open one.
        xa: Knows the prepared ones.
        rows: Takes note of emptied tables.
        tables: Knows the shapes of tables, which DDL changes.
        ddl: Tells of DDL; None: it is not told.
        stop_at_statements: As in `Decoder`.
    """

    def __init__(
        self,
        source: str,
        place: LogPlace,
        transactions: Transactions,
        xa: XaTransactions,
        rows: RowEvents,
        tables: Tables,
        ddl: DdlEvents | None,
        *,
        stop_at_statements: bool,
    ) -> None:
        self._source, self._place = source, place
        self._transactions, self._xa, self._rows = transactions, xa, rows
        self._tables, self._ddl = tables, ddl
        self._stop_at_statements = stop_at_statements

    def query(self, event: bytes, end: int) -> None:
        """A statement."""
        transaction = self._transactions.inside(event)
        if event[end - 6 : end] == b"\0BEGIN":
            transaction.block = True
            return
        query = parse_query(event, end)
        statement = classify(query.text)
        match statement.what:
            case What.BEGIN:
                transaction.block = True
            case What.COMMIT:
                self._transactions.end()
            case What.ROLLBACK:
                self._transactions.undo(transaction, 0)
                self._transactions.end()
            case What.SAVEPOINT:
                transaction.savepoints[statement.names[0].lower()] = transaction.order
            case What.ROLLBACK_TO:
                order = transaction.savepoints.get(statement.names[0].lower(), 0)
                self._transactions.undo(transaction, order)
            case What.XA:
                self._xa.statement(transaction, statement)
            case What.NOTHING:
                pass
            case What.ROWS:
                # it may have made a table
                self._tables.shapes_may_change()
                self._tell(transaction, query)
                self._not_as_rows(transaction, statement.verb)
            case What.TRUNCATE | What.DDL:
                self._tables.shapes_may_change()
                self._tell(transaction, query)
                if statement.what is What.TRUNCATE:
                    names = statement.names
                    schema, name = names if len(names) == 2 else (query.database, names[0])
                    self._rows.truncate(transaction, schema, name)
                self._transactions.end_unless_block()

    def compressed_query(self, event: bytes, end: int) -> None:
        """MariaDB's compressed form of a statement."""
        whole = uncompressed_query(event, end)
        self.query(whole, len(whole))

    def load_query(self, event: bytes, _: int) -> None:
        """A LOAD DATA statement that was logged with its file."""
        self._not_as_rows(self._transactions.inside(event), "LOAD DATA")

    def _tell(self, transaction: Transaction, query: Query) -> None:
        if self._ddl is not None:
            self._ddl.tell(transaction, query, self._rows.now_ms)

    def _not_as_rows(self, transaction: Transaction, verb: str) -> None:
        """A change that was logged as its statement: refused, or left out with a warning."""
        if not transaction.skipped:
            what = f"{verb or 'a statement'} was logged as its text instead of its rows"
            if self._stop_at_statements:
                raise refusals.statement_format(what, str(self._place))
            _log.warning(
                "change left out",
                source=self._source,
                reason=what,
                file=self._place.file,
                offset=self._place.end,
            )
        self._transactions.end_unless_block()
