"""pgoutput frames to chunks of changes, free of I/O.

    decoder.feed(frames); while chunk := decoder.chunk(idle=...): ...

A change's position is `<commit LSN, 16 hex digits>-<index, 8 hex digits>`; the index counts the
transaction's inserts, updates, deletes, truncated tables and transactional messages from 0. Change
LSNs go back from one transaction to the next, commit LSNs never do. A message outside a transaction
stands one byte before the end of its record: at that end the next transaction's commit may begin.
"""

from __future__ import annotations

import re
import struct
import time
from itertools import chain
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.errors import FatalError
from connectors.postgres.pgoutput.chunks import ChunkBuffer
from connectors.postgres.pgoutput.compiled import FIRST_VALUE, SHORT
from connectors.postgres.pgoutput.envelope import SourceBlock, assemble_message
from connectors.postgres.pgoutput.messages import Message, Origin, Relation, Truncate, Type
from connectors.postgres.pgoutput.parser import malformed, parse
from connectors.postgres.pgoutput.relations import Relations
from connectors.postgres.pgoutput.rows import unreadable
from connectors.postgres.pgoutput.streaming import EPOCH_US, XLOG_HEADER_SIZE, XLogData, parse_frame
from connectors.row_image import assemble, tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from connectors.contracts.changes import TableSchema
    from connectors.contracts.source import Checkpoint, Chunk
    from connectors.postgres.pgoutput.relations import KnownRelation
    from connectors.postgres.pgoutput.types import Catalog

    Frame: TypeAlias = bytes | memoryview

# LSN, message type, then what follows in a row's change: relation, tuple mark, column count. Every
# valid message is at least as long.
_HEAD = struct.Struct("!xQ16xBIBH").unpack_from
_BEGIN = struct.Struct("!26xQqI")
_COMMIT = struct.Struct("!26xx8xQ8x")
_B, _C, _I, _U, _D = b"BCIUD"
_NEW = ord("N")
_OPS = {_I: "c", _U: "u", _D: "d"}
_POSITION = re.compile(r"([0-9A-F]{16})-([0-9A-F]{8})")
# More changes than that in one transaction would not fit into a position.
_LARGEST = 1 << 32
_EVERYTHING = 1 << 62
# The prefix of messages by which sources only keep the log moving: they are no changes.
HEARTBEAT = "waxtap.heartbeat"


class Decoder:
    """Turns the frames of one replication stream into chunks.

    Args:
        source: The source's name in the configuration.
        database: The database's name.
        catalog: What the log does not tell about tables and types.
        resume: Changes at or below its position are skipped.
        system: The server's system identifier, part of every checkpoint.
        compiled: False: the slow, obviously right way.

    Raises:
        FatalError: `postgres.invalid_checkpoint`: the position in `resume` is not one of ours.
    """

    def __init__(
        self,
        source: str,
        database: str,
        catalog: Catalog,
        *,
        resume: Checkpoint | None,
        system: str,
        compiled: bool = True,
    ) -> None:
        self._relations = Relations(source, database, catalog, compiled=compiled)
        self._buffer = ChunkBuffer(source, system, resume)
        self._message_block = SourceBlock(source, database, "", "")
        # The last change that is not wanted: its commit LSN and index.
        self._skip = _parse_position(resume.position if resume else "")
        # The open transaction.
        self._xid: int | None = None
        self._transaction = ""
        self._committed_ms = 0
        self._prefix = ""
        self._order = 0  # how many of its changes were seen
        self._floor = 0  # how many of them are not wanted
        self._now_ms = 0

    @property
    def pending(self) -> int:
        """How many changes are buffered."""
        return self._buffer.pending

    @property
    def full(self) -> bool:
        """True when chunks must be taken before more is fed."""
        return self._buffer.full

    @property
    def boundary(self) -> bool:
        """As `ChunkBuffer.boundary`."""
        return self._buffer.boundary

    @property
    def lsn(self) -> int:
        """Where the log goes on behind everything complete that was fed."""
        return self._buffer.lsn

    def feed(self, messages: Sequence[Frame]) -> None:
        """Decode XLogData frames (payloads of CopyData that start with `w`).

        What is fed at once is decoded at once: memory follows its size.

        Raises:
            FatalError: A message is unknown, malformed or out of place, a value is not in the
                expected form, or a key is not in the log. Nothing may be fed after that.
        """
        self._now_ms = time.time_ns() // 1_000_000
        frames = iter(messages)
        frame = next(frames, None)
        while frame is not None:
            kind = frame[XLOG_HEADER_SIZE] if len(frame) > XLOG_HEADER_SIZE else 0
            if kind in _OPS:
                frame = self._rows(frame, frames)
                continue
            if kind == _B and len(frame) == _BEGIN.size:
                self._begin(*_BEGIN.unpack(frame))
            elif kind == _C and len(frame) == _COMMIT.size:
                self._commit(*_COMMIT.unpack(frame))
            else:
                self._other(frame)
            frame = next(frames, None)

    def keepalive(self, wal_end: int) -> None:
        """Take note of a keepalive: everything before `wal_end` has been sent."""
        if self._xid is None:
            self._buffer.advance_to(wal_end)

    def chunk(self, *, idle: bool) -> Chunk | None:
        """The next chunk, or None.

        Args:
            idle: True when there is no more input at the moment: then complete transactions are
                handed out even though the chunk is not full.
        """
        return self._buffer.take(idle=idle)

    def advance(self) -> Chunk | None:
        """An empty chunk that only moves the checkpoint, if there is nothing else to hand out."""
        return self._buffer.advance()

    def place(self) -> tuple[str, int]:
        """As `ChunkBuffer.place`."""
        return self._buffer.place()

    def insert(self, changes: list[Change], more: Mapping[str, str]) -> Chunk:
        """As `ChunkBuffer.insert`."""
        return self._buffer.insert(changes, more)

    def _rows(self, start: Frame, frames: Iterator[Frame]) -> Frame | None:
        """Decode changes of one table and kind for as long as they follow one another.

        The hottest loop of the product. Returns the frame behind them.
        """
        xid = self._inside(start)
        kind, oid, mark, columns, known = self._head(start)
        splice = known.splice if mark == _NEW and kind != _D else None
        pieces_wanted = columns + 1
        read, schema, op = known.reader.read, known.table.schema, _OPS[kind]
        middle = known.block.middle(self._committed_ms, xid)
        end = tail(op, self._now_ms, xid)
        prefix, transaction, floor, order = (
            self._prefix,
            self._transaction,
            self._floor,
            self._order,
        )
        buffer = self._buffer
        changes, size = buffer.open, buffer.open_bytes
        append, new, head, short, first = changes.append, tuple.__new__, _HEAD, SHORT, FIRST_VALUE
        following: Frame | None = None
        for frame in chain((start,), frames):
            try:
                lsn, kind_, oid_, mark_, columns_ = head(frame)
            except struct.error:
                raise _too_short(frame) from None
            if kind_ != kind or oid_ != oid or mark_ != mark or columns_ != columns:
                following = frame
                break
            order += 1
            if order <= floor:
                continue
            unavailable: tuple[str, ...] = ()
            if (
                splice is not None
                and len(pieces := str(frame[first:], "latin-1").split(short)) == pieces_wanted
            ):
                try:
                    envelope, key, json_nulls = splice(pieces, middle, lsn, end, order)
                except (ValueError, KeyError, IndexError):
                    raise unreadable(known.table, frame) from None
            else:
                before, after, key, unavailable, json_nulls = read(frame)
                envelope = assemble(before, after, middle, lsn, end, order)
            position = f"{prefix}{order - 1:08X}"
            # Not `Change(...)`, whose own `__new__` is a Python function.
            told = (
                op,
                schema,
                position,
                key,
                transaction,
                False,
                envelope,
                unavailable,
                json_nulls,
                "",
            )
            append(new(Change, told))
            size += len(envelope)
            if size > CHUNK_BYTES or len(changes) > CHUNK_CHANGES:
                buffer.open_bytes = size
                buffer.cut()
                size = buffer.open_bytes
        buffer.open_bytes = size
        self._count(order)
        return following

    def _head(self, frame: Frame) -> tuple[int, int, int, int, KnownRelation]:
        try:
            _, kind, oid, mark, columns = _HEAD(frame)
        except struct.error:
            raise _too_short(frame) from None
        known = self._relations[oid]
        if columns != known.columns:
            raise malformed(
                frame[XLOG_HEADER_SIZE:],
                f"a row of {columns} columns in a table of {known.columns}",
            )
        return kind, oid, mark, columns, known

    def _count(self, order: int) -> None:
        if order > _LARGEST:
            raise FatalError(
                "postgres.transaction_too_large",
                f"transaction {self._transaction} has more than {_LARGEST} changes",
            )
        self._order = order

    def _begin(self, commit_lsn: int, committed_at: int, xid: int) -> None:
        if self._xid is not None:
            raise _out_of_place("a Begin inside a transaction")
        self._xid = xid
        self._transaction = str(xid)
        self._committed_ms = (committed_at + EPOCH_US) // 1000
        self._prefix = f"{commit_lsn:016X}-"
        self._order = 0
        skip_lsn, skip_index = self._skip
        if commit_lsn > skip_lsn:
            self._floor = 0
        else:
            self._floor = skip_index + 1 if commit_lsn == skip_lsn else _EVERYTHING

    def _commit(self, end_lsn: int) -> None:
        if self._xid is None:
            raise _out_of_place("a Commit outside a transaction")
        self._xid = None
        self._buffer.commit(end_lsn)

    def _inside(self, frame: Frame) -> int:
        if self._xid is None:
            raise _out_of_place(f"a message {chr(frame[XLOG_HEADER_SIZE])!r} outside a transaction")
        return self._xid

    def _other(self, frame: Frame) -> None:
        """Take any message but a row's change, the exact way."""
        data = parse_frame(frame)
        if not isinstance(data, XLogData):
            raise _out_of_place("a keepalive among the log's messages")
        match parse(data.payload):
            case Relation() as relation:
                self._relations.learn(relation)
            case Type() as type_:
                self._relations.announce(type_)
            case Truncate() as truncate:
                self._truncate(truncate, data.start, self._inside(frame))
            case Message(prefix=prefix, transactional=True) if prefix == HEARTBEAT:
                self._inside(frame)
            case Message(transactional=True) as message:
                self._message(message, self._inside(frame))
            case Message() as message:
                self._loose_message(message)
            case Origin():
                self._inside(frame)
            case _:
                raise malformed(data.payload, "it is not where it should be")

    def _truncate(self, truncate: Truncate, lsn: int, xid: int) -> None:
        for oid in truncate.relations:
            known = self._relations[oid]
            middle = known.block.middle(self._committed_ms, xid)
            order = self._order + 1
            envelope = assemble("null", "null", middle, lsn, tail("t", self._now_ms, xid), order)
            self._add("t", known.table.schema, envelope)

    def _message(self, message: Message, xid: int) -> None:
        middle = self._message_block.middle(self._committed_ms, xid)
        place = (xid, self._order + 1)
        self._add("m", None, assemble_message(message, middle, self._now_ms, place))

    def _add(self, op: str, table: TableSchema | None, envelope: bytes) -> None:
        position = f"{self._prefix}{self._order:08X}"
        self._count(self._order + 1)
        if self._order > self._floor:
            change = Change(op, table, position, None, self._transaction, False, envelope)
            self._buffer.add(change)

    def _loose_message(self, message: Message) -> None:
        """A message that stands between transactions: one change, complete in itself."""
        if self._xid is not None:
            raise _out_of_place("a non-transactional message inside a transaction")
        # Records begin at multiples of 8, so that no commit ever has this place.
        place = message.lsn - 1
        if (place, 0) > self._skip:
            middle = self._message_block.middle(self._now_ms, None)
            envelope = assemble_message(message, middle, self._now_ms, None)
            position = f"{place:016X}-{0:08X}"
            self._buffer.add(Change("m", None, position, None, "", True, envelope))
        self._buffer.commit(message.lsn)


def _parse_position(position: str) -> tuple[int, int]:
    if not position:
        return -1, 0
    match = _POSITION.fullmatch(position)
    if match is None:
        raise FatalError(
            "postgres.invalid_checkpoint",
            f"not a position of a PostgreSQL source: {position[:40]!r}",
            cure="give the source a name whose stream no other kind of source has written",
        )
    return int(match[1], 16), int(match[2], 16)


def _too_short(frame: Frame) -> FatalError:
    return malformed(frame[XLOG_HEADER_SIZE:], "it is too short")


def _out_of_place(what: str) -> FatalError:
    return FatalError(
        "postgres.unexpected_message",
        f"the server sent {what}",
        cure="restart the flow; nothing was lost",
    )
