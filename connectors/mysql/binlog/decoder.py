"""The events of a binary log to chunks of changes, free of I/O.

decoder.feed(events); while chunk := decoder.chunk(idle=...): ...
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from connectors.mysql.binlog import events as ev
from connectors.mysql.binlog import refusals
from connectors.mysql.binlog.chunks import ChunkBuffer
from connectors.mysql.binlog.ddl_events import DdlEvents
from connectors.mysql.binlog.log_place import LogPlace
from connectors.mysql.binlog.payload import unfold
from connectors.mysql.binlog.position import log_place, prefix
from connectors.mysql.binlog.progress import Progress
from connectors.mysql.binlog.queries import Queries
from connectors.mysql.binlog.row_events import RowEvents
from connectors.mysql.binlog.rows import OPS
from connectors.mysql.binlog.transactions import Transactions
from connectors.mysql.binlog.xa import XaTransactions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk
    from connectors.mysql.binlog.progress import Resume
    from connectors.mysql.binlog.tables import Tables


class Decoder:
    """Turns the events of one server into chunks.

    Args:
        source: The source's name in the configuration.
        tables: Knows the shapes of tables.
        resume: From where reading goes on.
        position: Of the last change that is stored; empty before the first.
        server: The server's own identity.
        generation: Of this server: one more than before if it is another one.
        mariadb: Which kind of server it is.
        stop_at_statements: Whether a change that was logged as its statement is an error; False: it
            is left out with a warning.
        ddl: Whether the DDL statements of captured tables are among the changes.
    """

    def __init__(
        self,
        source: str,
        tables: Tables,
        *,
        resume: Resume,
        position: str,
        server: str,
        generation: int,
        mariadb: bool,
        stop_at_statements: bool,
        ddl: bool = False,
    ) -> None:
        progress = Progress(resume, server, generation, mariadb=mariadb)
        self._generation = generation
        self._place = place = LogPlace(resume)
        self._buffer = buffer = ChunkBuffer(source, position, progress)
        self._transactions = transactions = Transactions(
            place, buffer, progress, resume, generation=generation, mariadb=mariadb
        )
        self._rows = rows = RowEvents(place, transactions, tables, buffer)
        self._tables = tables
        self._queue: deque[bytes] = deque()
        # The events of a transaction that the log holds as one.
        self._inner: Iterator[bytes] | None = None
        xa = XaTransactions(source, transactions, rows, progress)
        queries = Queries(
            source,
            place,
            transactions,
            xa,
            rows,
            tables,
            DdlEvents(source, place, tables, buffer, position) if ddl else None,
            stop_at_statements=stop_at_statements,
        )
        begin = transactions.begin
        self._handlers: dict[int, Callable[[bytes, int], None]] = {
            ev.QUERY: queries.query,
            ev.ROTATE: self._rotate,
            ev.FORMAT_DESCRIPTION: self._describe_format,
            ev.XID: self._xid,
            ev.TABLE_MAP: rows.table_map,
            ev.GTID: lambda event, _: begin(ev.parse_gtid(event), event),
            ev.GTID_TAGGED: lambda event, end: begin(ev.parse_tagged_gtid(event, end), event),
            ev.MARIADB_GTID: lambda event, _: begin(ev.parse_mariadb_gtid(event), event),
            ev.XA_PREPARE: xa.prepare,
            ev.TRANSACTION_PAYLOAD: self._unfold,
            ev.EXECUTE_LOAD_QUERY: queries.load_query,
            ev.MARIADB_QUERY_COMPRESSED: queries.compressed_query,
            ev.INCIDENT: self._incident,
            ev.ANONYMOUS_GTID: self._anonymous,
            ev.PARTIAL_UPDATE_ROWS: rows.partial_json,
            **dict.fromkeys(OPS, rows.rows),
            **dict.fromkeys(ev.MARIADB_COMPRESSED_ROWS, rows.compressed_rows),
            **dict.fromkeys(ev.HEARTBEATS, self._heartbeat),
            **dict.fromkeys(ev.PASSED_OVER | ev.OF_STATEMENTS, _pass_over),
        }

    @property
    def file(self) -> str:
        """The log file that is being read; empty before the first."""
        return self._place.file

    @property
    def pending(self) -> int:
        """How many changes are buffered."""
        return self._buffer.pending

    @property
    def full(self) -> bool:
        """True when chunks must be taken before more is fed."""
        return self._buffer.full or bool(self._queue)

    @property
    def boundary(self) -> bool:
        """As `ChunkBuffer.boundary`."""
        return self._buffer.boundary

    @property
    def reached(self) -> int:
        """Up to where the log was decoded, as `position.log_place` counts it."""
        return log_place(self._place.file, self._here) if self._place.file else 0

    def place(self) -> tuple[str, int]:
        """As `ChunkBuffer.place`."""
        return self._buffer.place(prefix(self._generation, self._place.number, self._here - 1))

    def insert(self, changes: list[Change], more: Mapping[str, str]) -> Chunk:
        """As `ChunkBuffer.insert`."""
        return self._buffer.insert(changes, more)

    def feed(self, events: Sequence[bytes]) -> None:
        """Take events over; they are decoded as far as chunks are taken.

        Raises:
            FatalError: An event is unknown, malformed or out of place, or refused. Nothing may be
                fed after that.
        """
        self._queue.extend(events)
        self._run()

    def chunk(self, *, idle: bool) -> Chunk | None:
        """The next chunk, or None. Raises as `feed`.

        Args:
            idle: True when there is no more input at the moment: then complete transactions are
                handed out even though the chunk is not full.
        """
        chunk = self._buffer.take(idle=False)
        if chunk is None and (self._queue or self._inner is not None):
            self._run()
        more = bool(self._queue) or self._inner is not None
        return chunk or self._buffer.take(idle=idle and not more)

    def advance(self) -> Chunk | None:
        """An empty chunk that only moves the checkpoint, if there is nothing else to hand out."""
        return None if self._queue or self._inner is not None else self._buffer.advance()

    @property
    def _here(self) -> int:
        """Where in the file the log goes on behind everything that is complete."""
        transaction = self._transactions.open
        return self._place.end if transaction is None else transaction.offset

    def _run(self) -> None:
        self._rows.now_ms = time.time_ns() // 1_000_000
        queue, buffer, handlers = self._queue, self._buffer, self._handlers
        place, transactions = self._place, self._transactions
        while not buffer.full:
            if self._inner is not None:
                event = next(self._inner, None)
                if event is None:
                    self._inner = None
                    continue
                end = len(event)
            elif queue:
                event = queue.popleft()
                end = place.check(event)
                if transactions.open is not None and event[4] != ev.FORMAT_DESCRIPTION:
                    place.advance(event)
            else:
                return
            handler = handlers.get(event[4])
            if handler is not None:
                handler(event, end)
            elif not event[17] & ev.IGNORABLE:
                raise refusals.unknown_event(event[4], str(place))

    def _rotate(self, event: bytes, end: int) -> None:
        self._transactions.abandon()
        self._place.rotate(event, end)
        self._tables.forget_maps()

    def _describe_format(self, event: bytes, _: int) -> None:
        self._transactions.abandon()
        self._place.describe_format(event)

    def _heartbeat(self, event: bytes, _: int) -> None:
        if self._transactions.open is None:
            self._place.heard(event)

    def _xid(self, event: bytes, _: int) -> None:
        self._transactions.inside(event)
        self._transactions.end()

    def _unfold(self, event: bytes, end: int) -> None:
        self._transactions.inside(event)
        self._inner = unfold(event, end)

    def _incident(self, event: bytes, end: int) -> None:
        text = event[ev.HEADER_SIZE + 3 : end].decode(errors="replace")
        raise refusals.incident(text, str(self._place))

    def _anonymous(self, _event: bytes, _end: int) -> None:
        raise refusals.anonymous_transaction(str(self._place))


def _pass_over(event: bytes, end: int) -> None:
    """Take no notice of an event."""
