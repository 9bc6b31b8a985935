"""The events of a binary log to chunks of changes, free of I/O.

    decoder.feed(events); while chunk := decoder.chunk(idle=...): ...

A transaction is wanted when its GTID is not in the set of what is complete: files and offsets order
the changes of one server, but only GTIDs tell what was stored.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING
from zlib import crc32

import structlog

from connectors.contracts import Change
from connectors.mysql.binlog import events as ev
from connectors.mysql.binlog import refusals
from connectors.mysql.binlog.chunks import ChunkBuffer
from connectors.mysql.binlog.envelope import Stamp, assemble, tail
from connectors.mysql.binlog.gtids import MariadbGtids
from connectors.mysql.binlog.payload import uncompressed_query, uncompressed_rows, unfold
from connectors.mysql.binlog.position import prefix, split_file
from connectors.mysql.binlog.progress import Progress, Spot
from connectors.mysql.binlog.row_changes import add_rows
from connectors.mysql.binlog.rows import OPS
from connectors.mysql.binlog.statements import What, classify
from connectors.mysql.binlog.transaction import EVERYTHING, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connectors.contracts import Chunk
    from connectors.mysql.binlog.events import Begin, Gtid
    from connectors.mysql.binlog.gtids import MysqlGtids
    from connectors.mysql.binlog.progress import Resume
    from connectors.mysql.binlog.statements import Statement
    from connectors.mysql.binlog.tables import KnownTable, Tables

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


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

    Attributes:
        file: The log file that is being read; empty before the first.
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
    ) -> None:
        self.file = ""
        self._source = source
        self._tables = tables
        self._generation = generation
        self._stop_at_statements = stop_at_statements
        self._progress = Progress(resume, server, generation, mariadb=mariadb)
        self._buffer = ChunkBuffer(source, position, self._progress)
        # MariaDB sends nothing twice, unless it is asked to begin before a transaction that is
        # held; its numbers alone do not tell what was seen, because they may go back.
        self._seen: MysqlGtids | MariadbGtids = self._progress.seen
        if mariadb:
            self._seen = resume.seen(mariadb=True) if resume.held else MariadbGtids()
        # Where the log was last seen, from which the upper half of an offset is told.
        self._floor = (resume.file, resume.offset) if not resume.held else ("", 0)
        self._number = self._start = self._end = 0
        self._checksums = False
        self._open: Transaction | None = None
        self._prepared: dict[str, tuple[Gtid, list[bytes]]] = {}
        self._queue: deque[bytes] = deque()
        self._inner: Iterator[bytes] | None = None
        self._now_ms = 0
        self._handlers: dict[int, Callable[[bytes, int], None]] = {
            ev.QUERY: self._query,
            ev.ROTATE: self._rotate,
            ev.FORMAT_DESCRIPTION: self._describe_format,
            ev.XID: self._xid,
            ev.TABLE_MAP: self._table_map,
            ev.GTID: lambda event, _: self._begin(ev.parse_gtid(event), event),
            ev.GTID_TAGGED: self._tagged_gtid,
            ev.MARIADB_GTID: lambda event, _: self._begin(ev.parse_mariadb_gtid(event), event),
            ev.XA_PREPARE: self._xa_prepare,
            ev.TRANSACTION_PAYLOAD: self._unfold,
            ev.EXECUTE_LOAD_QUERY: self._load_query,
            ev.MARIADB_QUERY_COMPRESSED: self._compressed_query,
            ev.INCIDENT: self._incident,
            ev.ANONYMOUS_GTID: self._anonymous,
            ev.PARTIAL_UPDATE_ROWS: self._partial_json,
            **dict.fromkeys(OPS, self._rows_event),
            **dict.fromkeys(ev.MARIADB_COMPRESSED_ROWS, self._compressed_rows),
            **dict.fromkeys(ev.PASSED_OVER | ev.OF_STATEMENTS | ev.HEARTBEATS, _pass_over),
        }

    @property
    def pending(self) -> int:
        """How many changes are buffered."""
        return self._buffer.pending

    @property
    def full(self) -> bool:
        """True when chunks must be taken before more is fed."""
        return self._buffer.full or bool(self._queue)

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

    def _run(self) -> None:
        self._now_ms = time.time_ns() // 1_000_000
        queue, buffer, handlers = self._queue, self._buffer, self._handlers
        while not buffer.full:
            if self._inner is not None:
                event = next(self._inner, None)
                if event is None:
                    self._inner = None
                    continue
                end = len(event)
            elif queue:
                event = queue.popleft()
                end = self._checked(event)
            else:
                return
            handler = handlers.get(event[4])
            if handler is not None:
                handler(event, end)
            elif not event[17] & ev.IGNORABLE:
                raise refusals.unknown_event(event[4], self._where)

    def _checked(self, event: bytes) -> int:
        """Where an event ends, its checksum left out; the offset moves on behind it."""
        size = len(event)
        if size < ev.HEADER_SIZE:
            raise ev.malformed(event, "it is too short")
        end = size
        if event[4] == ev.FORMAT_DESCRIPTION:
            return end
        if self._checksums:
            end -= ev.CHECKSUM_SIZE
            if crc32(memoryview(event)[:end]) != int.from_bytes(event[end:], "little"):
                raise refusals.wrong_checksum(event[4], self._where)
        if self._open is not None:
            self._advance(event)
        return end

    def _advance(self, event: bytes) -> None:
        """Move the offset behind an event; its header holds but the lower half of it."""
        low = int.from_bytes(event[13:17], "little")
        if low:
            expected = self._end + len(event)
            if expected & 0xFFFFFFFF != low:
                expected = self._end & ~0xFFFFFFFF | low
                expected += (expected < self._end) << 32
            self._end = expected
        self._start = self._end - len(event)

    @property
    def _where(self) -> str:
        return f"{self.file}:{self._end}"

    def _rotate(self, event: bytes, end: int) -> None:
        # Before the first event of a file nothing tells whether this one has a checksum.
        body = event[: -ev.CHECKSUM_SIZE]
        if end == len(event) and crc32(body) == int.from_bytes(event[-4:], "little"):
            end -= ev.CHECKSUM_SIZE
        self._abandon()
        self.file, self._end = ev.parse_rotate(event, end)
        _, self._number = split_file(self.file)
        if self.file == self._floor[0]:
            self._end = max(self._end, self._floor[1])
        self._tables.forget_maps()

    def _describe_format(self, event: bytes, _: int) -> None:
        self._abandon()
        self._checksums = ev.parse_format_description(event).checksums

    def _abandon(self) -> None:
        """Forget a transaction that a crash of the server left torn at the end of a file."""
        if self._open is None:
            return
        if self._buffer.cut_off:
            raise refusals.torn_transaction(self._open.stamp.gtid, self._where)
        self._buffer.undo(0)
        self._open = None

    def _tagged_gtid(self, event: bytes, end: int) -> None:
        self._begin(ev.parse_tagged_gtid(event, end), event)

    def _begin(self, begin: Begin, event: bytes) -> None:
        if self._open is not None:
            raise refusals.out_of_place("a transaction inside a transaction", self._where)
        self._advance(event)
        offset, gtid = self._start, begin.gtid
        floor = self._progress.partial.get(gtid, 0)
        if not floor and gtid in self._seen and gtid not in self._progress.held:
            floor = EVERYTHING
        mariadb = event[4] == ev.MARIADB_GTID
        server = int.from_bytes(event[5:9], "little")
        self._open = Transaction(
            begin,
            Stamp(f"{gtid.source}{gtid.number}", begin.committed_ms, server, self.file),
            prefix(self._generation, self._number, offset),
            floor,
            block=mariadb and not begin.standalone,
            xa=begin.prepared,
        )
        self._buffer.begin(Spot(self._number, offset, gtid))

    def _end_transaction(self) -> None:
        if self._open is not None and not self._open.skipped:
            self._buffer.commit(self.file, stored=self._open.floor > 0)
        self._open = None

    def _xid(self, event: bytes, _: int) -> None:
        self._inside(event)
        self._end_transaction()

    def _table_map(self, event: bytes, end: int) -> None:
        transaction = self._inside(event)
        if transaction.skipped:
            return
        if transaction.xa:
            transaction.kept.append(event[:end])
        else:
            self._tables.learn(event, end)

    def _rows_event(self, event: bytes, end: int) -> None:
        transaction = self._inside(event)
        if transaction.skipped:
            return
        if transaction.xa:
            transaction.kept.append(event[:end])
            return
        known = self._tables.of_rows(event)
        if known is not None:
            self._rows(transaction, known, event, end)

    def _compressed_rows(self, event: bytes, end: int) -> None:
        transaction = self._inside(event)
        if transaction.skipped or not (transaction.xa or self._tables.of_rows(event)):
            return
        whole, kind = uncompressed_rows(event, end)
        whole = whole[:4] + bytes([kind]) + whole[5:]
        self._rows_event(whole, len(whole))

    def _rows(self, transaction: Transaction, known: KnownTable, event: bytes, end: int) -> None:
        add_rows(
            self._buffer,
            transaction,
            known,
            event,
            end,
            offset=self._start,
            now_ms=self._now_ms,
        )

    def _unfold(self, event: bytes, end: int) -> None:
        self._inside(event)
        self._inner = unfold(event, end)

    def _query(self, event: bytes, end: int) -> None:
        transaction = self._inside(event)
        if event[end - 6 : end] == b"\0BEGIN":
            transaction.block = True
            return
        query = ev.parse_query(event, end)
        statement = classify(query.text)
        match statement.what:
            case What.BEGIN:
                transaction.block = True
            case What.COMMIT:
                self._end_transaction()
            case What.ROLLBACK:
                self._undo(transaction, 0)
                self._end_transaction()
            case What.SAVEPOINT:
                transaction.savepoints[statement.names[0].lower()] = transaction.order
            case What.ROLLBACK_TO:
                order = transaction.savepoints.get(statement.names[0].lower(), 0)
                self._undo(transaction, order)
            case What.XA:
                self._xa(transaction, statement)
            case What.NOTHING:
                pass
            case What.ROWS:
                # it may have made a table
                self._tables.shapes_may_change()
                self._statement_rows(statement.verb)
                self._leave_unless_block(transaction)
            case What.TRUNCATE | What.DDL:
                self._tables.shapes_may_change()
                if statement.what is What.TRUNCATE and not transaction.skipped:
                    self._truncate(transaction, query.database, statement.names)
                self._leave_unless_block(transaction)

    def _load_query(self, event: bytes, _: int) -> None:
        transaction = self._inside(event)
        self._statement_rows("LOAD DATA")
        self._leave_unless_block(transaction)

    def _compressed_query(self, event: bytes, end: int) -> None:
        whole = uncompressed_query(event, end)
        self._query(whole, len(whole))

    def _leave_unless_block(self, transaction: Transaction) -> None:
        if not transaction.block:
            self._end_transaction()

    def _undo(self, transaction: Transaction, order: int) -> None:
        """Take the changes behind the first `order` of a transaction back."""
        if transaction.skipped:
            return
        kept = max(order - transaction.floor, 0)
        if self._buffer.cut_off:
            raise refusals.late_rollback(transaction.stamp.gtid, self._where)
        self._buffer.undo(kept)
        transaction.order = order

    def _truncate(self, transaction: Transaction, database: str, names: tuple[str, ...]) -> None:
        schema, name = names if len(names) == 2 else (database, names[0])
        if not self._tables.captured(schema, name):
            return
        table, block = self._tables.truncated(schema, name)
        stamp = transaction.stamp
        order = transaction.order = transaction.order + 1
        if order <= transaction.floor:
            return
        middle = block.middle(stamp, self._start)
        behind = tail("t", self._now_ms, stamp.gtid)
        envelope = assemble("null", "null", middle, 0, behind, order)
        position = f"{transaction.prefix}{order - 1:08X}"
        self._add(Change("t", table, position, None, stamp.gtid, False, envelope))

    def _add(self, change: Change) -> None:
        self._buffer.open.append(change)
        self._buffer.open_bytes += len(change.envelope)

    def _statement_rows(self, verb: str) -> None:
        if self._open is None or self._open.skipped:
            return
        what = f"{verb or 'a statement'} was logged as its text instead of its rows"
        if self._stop_at_statements:
            raise refusals.statement_format(what, self._where)
        _log.warning(
            "change left out", source=self._source, reason=what, file=self.file, offset=self._end
        )

    def _xa(self, transaction: Transaction, statement: Statement) -> None:
        word, identifier = statement.names
        if word == "START" or word == "BEGIN":
            transaction.block = True
            transaction.xa = transaction.xa or identifier
        elif word in ("COMMIT", "ROLLBACK"):
            self._end_xa(transaction, transaction.begin.completed or identifier, word == "COMMIT")

    def _xa_prepare(self, event: bytes, _: int) -> None:
        """What an XA transaction did is known; a flag tells that it is committed as well."""
        transaction = self._inside(event)
        kept, xa = transaction.kept, transaction.xa
        if not transaction.skipped:
            if event[ev.HEADER_SIZE]:
                self._replay(transaction, kept)
            else:
                gtid = transaction.begin.gtid
                self._prepared[xa] = (gtid, kept)
                if gtid in self._progress.held:
                    # read again after a restart
                    self._open = None
                    return
                seen = self._progress.seen
                before = seen.last(gtid) if isinstance(seen, MariadbGtids) else None
                self._progress.held[gtid] = before
        self._end_transaction()

    def _end_xa(self, transaction: Transaction, xa: str, committed: bool) -> None:
        gtid, kept = self._prepared.pop(xa, (None, []))
        if not transaction.skipped:
            if gtid is None:
                _log.warning(
                    "an XA transaction that was prepared before capturing began is left out",
                    source=self._source,
                    transaction=transaction.stamp.gtid,
                )
            elif committed:
                self._replay(transaction, kept)
        if gtid is not None:
            self._progress.held.pop(gtid, None)
        self._end_transaction()

    def _replay(self, transaction: Transaction, kept: list[bytes]) -> None:
        """Decode the events of an XA transaction, now that it is committed."""
        for event in kept:
            if event[4] == ev.TABLE_MAP:
                self._tables.learn(event, len(event))
            elif (known := self._tables.of_rows(event)) is not None:
                self._rows(transaction, known, event, len(event))

    def _incident(self, event: bytes, end: int) -> None:
        text = event[ev.HEADER_SIZE + 3 : end].decode(errors="replace")
        raise refusals.incident(text, self._where)

    def _anonymous(self, event: bytes, end: int) -> None:
        raise refusals.anonymous_transaction(self._where)

    def _partial_json(self, event: bytes, end: int) -> None:
        transaction = self._inside(event)
        if transaction.skipped or not (transaction.xa or self._tables.of_rows(event)):
            return
        raise refusals.partial_json(self._where)

    def _inside(self, event: bytes) -> Transaction:
        if self._open is None:
            what = f"an event of type {event[4]} outside a transaction"
            raise refusals.out_of_place(what, self._where)
        return self._open


def _pass_over(event: bytes, end: int) -> None:
    """Take no notice of an event."""
