"""Changes that tell of the DDL statements in a log.

A statement is not counted among a transaction's rows, so that their positions are the same whether
statements are told or not: it has the position of the row that would follow it. Mostly there is
none; where a transaction makes a table and fills it, or a TRUNCATE is told as such too, both lie in
the same batch, because nothing is cut between changes of one position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.changes import DDL, Change
from connectors.mysql.binlog.table_ddl import hide_secrets, parse_table_ddl
from connectors.row_image import assemble, tail

if TYPE_CHECKING:
    from connectors.mysql.binlog.chunks import ChunkBuffer
    from connectors.mysql.binlog.events import Query
    from connectors.mysql.binlog.log_place import LogPlace
    from connectors.mysql.binlog.tables import Tables
    from connectors.mysql.binlog.transaction import Transaction

# More bytes of a statement are not told.
LONGEST_STATEMENT = 64 * 1024


class DdlEvents:
    """Puts DDL statements of captured tables among the changes of the open transaction.

    Args:
        source: The source's name.
        place: Where the log is being read.
        tables: Knows which tables are captured.
        buffer: Takes the changes.
        position: Of the last change that is stored. A statement before it was passed over while
            none were told, and is not told late.
    """

    def __init__(
        self, source: str, place: LogPlace, tables: Tables, buffer: ChunkBuffer, position: str
    ) -> None:
        self._source, self._place = source, place
        self._tables, self._buffer, self._stored = tables, buffer, position

    def tell(self, transaction: Transaction, query: Query, now_ms: int) -> None:
        """Tell of a statement, if it is DDL of a captured table and not stored yet.

        Args:
            transaction: The open one.
            query: The statement.
            now_ms: Unix time in milliseconds.
        """
        order = transaction.order
        position = f"{transaction.prefix}{order:08X}"
        if transaction.skipped or order < transaction.floor or position <= self._stored:
            return
        ddl = parse_table_ddl(query.text, query.database)
        if ddl is None:
            return
        captured = [name for name in (*ddl.tables, *ddl.renamed) if self._tables.captured(*name)]
        if not captured:
            return
        stamp = transaction.stamp
        whole = hide_secrets(query.text).encode()
        shown = whole[:LONGEST_STATEMENT].decode(errors="ignore")
        told: dict[str, object] = {
            "kind": ddl.kind,
            "source": self._source,
            "database": query.database,
            "tables": [{"schema": schema, "table": name} for schema, name in ddl.tables],
            "renamed_to": [{"schema": schema, "table": name} for schema, name in ddl.renamed],
            "statement": shown,
            "truncated": len(whole) > LONGEST_STATEMENT,
            "position": position,
            "gtid": stamp.gtid,
            "ts_ms": stamp.committed_ms,
        }
        middle = self._tables.block(*captured[0]).middle(stamp, self._place.start)
        behind = tail("m", now_ms, stamp.gtid)
        envelope = assemble("null", "null", middle, 0, behind, order + 1)
        envelope = envelope[:-1] + b',"ddl":' + msgspec.json.encode(told) + b"}"
        self._buffer.open.append(Change(DDL, None, position, None, stamp.gtid, False, envelope))
        self._buffer.open_bytes += len(envelope)
