"""What sources, sinks and the flows between them agree on.

    Source.open(resume) -> SourceReader.read() -> Chunk ...        capture: log -> stream
    Sink.claim(share) -> Claim; Sink.open(claim) -> SinkWriter     deliver: stream -> target

A `Chunk` is the unit that travels through a capture flow: changes in log order, cut at transaction
boundaries wherever a transaction is small enough, with the state from which the source resumes
behind it. A `Batch` is the unit of a delivery flow: stored messages in stream order. Single changes
never travel alone: a step that needs one unpacks them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from json import dumps, loads
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta
    from threading import Event
    from typing import BinaryIO

    from connectors.errors import WaxtapError

# A chunk holds at most this many changes: JetStream's limit for one atomic batch is 1000.
CHUNK_CHANGES = 1000
# A chunk holds at most about this many bytes, so that memory stays flat whatever the rows' size.
CHUNK_BYTES = 8 * 1024 * 1024


class Column(msgspec.Struct, frozen=True):
    """A column as its source declares it.

    Attributes:
        name: The column's name, unquoted.
        type: The source's own type, as in its DDL: `numeric(10,2)`, `text[]`, `shop.mood`.
        json: How values appear in the envelope: `number`, `boolean`, `string`, `base64`, `json`,
            `array` (JSON array of strings, numbers or booleans) or `array:base64`, `array:json`.
        portable: False where `type` exists only in the source (enum, domain, composite,
            extension types): a sink of the same kind then stores the value as text.
    """

    name: str
    type: str
    json: str = "string"
    portable: bool = True


class TableSchema(msgspec.Struct, frozen=True, dict=True):
    """One version of a table's shape, stored once under its `hash`.

    Attributes:
        source: The source's name in the configuration.
        schema: Namespace in the source (PostgreSQL schema, MySQL database).
        name: The table's name.
        columns: In the source's order.
        key: Names of the columns that identify a row, in the columns' order; empty: there are none.
        dialect: Whose type names these are: `postgresql`, `mysql`, `mariadb`, `json`.
    """

    source: str
    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    dialect: str = "postgresql"

    @cached_property
    def encoded(self) -> bytes:
        """The JSON that is stored; `decode` reads it back."""
        return msgspec.json.encode(self)

    @cached_property
    def hash(self) -> str:
        """32 hex digits that name this version (BLAKE2b-128 of `encoded`)."""
        return blake2b(self.encoded, digest_size=16).hexdigest()

    @staticmethod
    def decode(data: bytes) -> TableSchema:
        """Read what `encoded` wrote."""
        return msgspec.json.decode(data, type=TableSchema)


class Change(NamedTuple):
    """One row-level event, its envelope already rendered as JSON.

    Attributes:
        op: `c` create, `u` update, `d` delete, `r` read, `t` truncate, `m` logical message.
        table: The shape that the row was written under; None for `m`.
        position: Where the change stands in its source: fixed width, sorts like the log.
        key: The key's columns, in the table's order, as a JSON object in ASCII without blanks; None
            for `t`, `m` and keyless tables.
        transaction: The source's transaction id; empty outside one.
        last: True on the last change of a transaction.
        envelope: The Debezium envelope as UTF-8 JSON: `before`, `after`, `source`, `op`, `ts_ms`,
            `transaction`; for `m` also `message`.
        unavailable: Columns whose value the log did not carry (unchanged TOAST); `after` holds
            `UNAVAILABLE` for them.
        json_nulls: Columns of `after` whose value is the JSON null, which the envelope writes like
            an SQL NULL; columns whose `Column.json` is `json`, not arrays of such values.
        failed: Empty, or why a pipeline could not work on the change, which is then stored as it
            came (`Failure.encoded`): it is a dead letter to every sink that reads it.
    """

    op: str
    table: TableSchema | None
    position: str
    key: str | None
    transaction: str
    last: bool
    envelope: bytes
    unavailable: tuple[str, ...] = ()
    json_nulls: tuple[str, ...] = ()
    failed: str = ""


class UnwrappedChange(Change):
    """A change whose `envelope` is the new row alone, or null where there is none.

    Its op is stored in a header, and delivery makes an envelope again (`wrapping`).
    """

    __slots__ = ()


class Failure(msgspec.Struct, frozen=True):
    """Why a filter or a transform could not work on a change.

    Attributes:
        pipeline: Whose: a pipeline's name, or `sinks.<name>` for a sink's own steps.
        code: Stable dotted identifier, such as `filter.no_such_field`.
        message: What is wrong, without the row's values.
    """

    pipeline: str
    code: str
    message: str

    @property
    def encoded(self) -> str:
        """JSON in ASCII on one line, as it is stored in a header; `decode` reads it back."""
        return dumps([self.pipeline, self.code, self.message], separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> Failure:
        """Read what `encoded` wrote."""
        return Failure(*loads(text))


# Stands in `after` for a column whose value the log did not carry (Debezium's own marker).
UNAVAILABLE = "__debezium_unavailable_value"


class Checkpoint(msgspec.Struct, frozen=True):
    """From where a source resumes.

    Attributes:
        position: Of the last change that is stored; changes at or below it are skipped. Empty
            before the first.
        state: What the source needs besides, its own business (PostgreSQL: `lsn`, `system`).
    """

    position: str
    state: dict[str, str]


@dataclass(slots=True)
class Chunk:
    """Changes in log order, and the state behind the last of them.

    Attributes:
        source: The source's name.
        changes: May be empty: then only the checkpoint advances.
        checkpoint: To resume behind the chunk.
        resume: The state of the latest checkpoint *before* the chunk; with the position of a change
            inside the chunk it makes a checkpoint for a cut in the middle.
    """

    source: str
    changes: list[Change]
    checkpoint: Checkpoint
    resume: dict[str, str]


class StateStore(Protocol):
    """Keeps what a source must remember beyond its checkpoint: files by name, whole or not at all.

    It belongs to one source. Stored is stored for good: a checkpoint may name what `put` has taken.
    Usable from any thread, not from two at once.
    """

    def put(self, name: str, data: BinaryIO) -> None:
        """Store what `data` holds from where it stands to its end, in place of an older `name`.

        Raises:
            RetryableError: It could not be stored now.
        """
        ...

    def get(self, name: str, into: BinaryIO) -> None:
        """Write what is stored under `name` to `into`.

        Raises:
            GapError: There is no such name.
            RetryableError: The store cannot be reached.
        """
        ...

    def names(self) -> list[str]:
        """What is stored, in no order.

        Raises:
            RetryableError: The store cannot be reached.
        """
        ...

    def remove(self, name: str) -> None:
        """Forget a name; one that is not there is fine.

        Raises:
            RetryableError: The store cannot be reached.
        """
        ...


class InboxMark(msgspec.Struct, frozen=True):
    """A place in an inbox.

    Attributes:
        created: When the inbox was made (RFC 3339): one that was made again is another one.
        sequence: Of the last message before the place; 0: none.
        stored: When that message was stored (RFC 3339); empty: there is none.
    """

    created: str
    sequence: int
    stored: str


class Arrived(NamedTuple):
    """A message as it lies in an inbox.

    Attributes:
        mark: The place behind it.
        headers: As they were given to `InboxWriter.store`.
        body: As it was given.
    """

    mark: InboxMark
    headers: dict[str, str]
    body: bytes


class InboxWriter(Protocol):
    """Stores messages; used inside one event loop. Any number of them may write to one inbox."""

    @property
    def max_body(self) -> int:
        """The largest body in bytes that can be stored."""
        ...

    @property
    def max_headers(self) -> int:
        """The most bytes that headers may take as a JSON object in ASCII without blanks."""
        ...

    @property
    def created(self) -> str:
        """When the inbox was made, as in `InboxMark`."""
        ...

    async def store(self, body: bytes, headers: Mapping[str, str], identity: str = "") -> bool:
        """Return once the message is stored for good. What comes meanwhile is stored together.

        Args:
            body: Up to `max_body` bytes.
            headers: Up to `max_headers` bytes.
            identity: Of messages with the same one only the first is stored, for as long as the
                inbox remembers them; empty: it is stored in any case.

        Returns:
            False where one of that identity was stored before.

        Raises:
            RetryableError: It may have been stored or not: nobody answered, or too much waits.
        """
        ...

    async def ready(self) -> bool:
        """Whether the inbox answers at this moment."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class InboxReader(Protocol):
    """Reads messages in the order in which they were stored. Used by one thread at a time."""

    def read(self) -> Sequence[Arrived]:
        """The next messages, none when there are none now. Does not wait.

        Raises:
            GapError: Messages are gone unread, or the inbox is another one.
        """
        ...

    def purge(self, sequence: int) -> None:
        """Let the inbox drop what lies before this sequence; may be without effect."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class InboxPreview(NamedTuple):
    """What opening an inbox would meet.

    Attributes:
        created: When it was made, as in `InboxMark`; empty: it is still to be made.
        max_body: The largest body in bytes that can be stored.
    """

    created: str
    max_body: int


class Inbox(Protocol):
    """A durable queue before a source, for what is pushed to it."""

    def preview(self) -> InboxPreview:
        """See whether it can be opened; makes and changes nothing.

        Raises:
            ConfigError: The server, or an inbox of that name, is of no use.
            RetryableError: It cannot be reached.
        """
        ...

    def writer(self, window: timedelta, max_bytes: int) -> InboxWriter:
        """Open the inbox for writing; it is made where it is missing.

        Args:
            window: For how long identities are remembered.
            max_bytes: How much it may hold; 0: any amount.

        Raises:
            ConfigError: The server refuses it.
            RetryableError: It cannot be reached.
        """
        ...

    def reader(
        self, behind: InboxMark | None, window: timedelta, max_bytes: int, accept: Collection[str]
    ) -> tuple[InboxReader, InboxMark, bool]:
        """Open it for reading behind a place, or from its beginning; made where it is missing.

        Returns:
            The reader, the place, and whether sequences begin anew: the owner has accepted that
            the inbox, or its end, is another one.

        Raises:
            ConfigError: The server refuses it.
            GapError: What follows the place is gone.
            RetryableError: It cannot be reached.
        """
        ...

    def remove(self) -> str:
        """Delete it with what it holds; returns its name, empty where there is none.

        Raises:
            RetryableError: It cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What the flow gives to a source.

    Attributes:
        stop: Once set, the flow ends: nothing is waited for any more.
        state: For a source whose server does not remember for it.
        inbox: For a source that is pushed to.
        past: Set where the source is read only to repeat what its stream holds already, up to this
            checkpoint: what has no server that remembers asks for nothing new then.
    """

    stop: Event
    state: StateStore
    inbox: Inbox
    past: Checkpoint | None = None


class SourceReader(Protocol):
    """An open source. Used by one thread at a time."""

    def read(self) -> Chunk | None:
        """Return the next chunk, or None when there is nothing now.

        Blocks for some milliseconds at most. Lost connections are mended inside, with backoff:
        meanwhile it returns None, or an empty chunk that repeats the last checkpoint (so that a
        flow that has been fenced finds out).

        Raises:
            FatalError: The source cannot go on; nothing was lost.
        """
        ...

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Tell the server that everything up to `checkpoint` is stored for good."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class Source(Protocol):
    """A configured source."""

    def open(self, resume: Checkpoint | None) -> SourceReader:
        """Check the server, connect, and start behind `resume` (None: from the beginning).

        The caller has fenced every older owner of the source's stream before, so that an older
        session of the same source on the server may be ended.

        Raises:
            ConfigError: One clear error for each thing that must be set up first.
            GapError: The server no longer has what follows `resume`.
            RetryableError: The server cannot be reached.
        """
        ...

    def check(self) -> list[WaxtapError]:
        """What would keep a source that starts anew from starting; changes nothing anywhere.

        A source of the same name that runs is not disturbed. Never raises a WaxtapError: a server
        that cannot be reached is a finding as well.

        Returns:
            One clear error for each thing that was found; empty: it can start.
        """
        ...

    def drop(self) -> list[str]:
        """Remove what the source has created on its server, such as a slot; return what it was.

        Raises:
            ConfigError: It is in use, or not this source's own.
            RetryableError: The server cannot be reached.
        """
        ...


class Observation(NamedTuple):
    """Where a source's server is.

    Attributes:
        position: Of the end of its log: an LSN, a GTID set, a file and an offset.
        slot: What keeps the log there for the source; empty: nothing does.
        slot_active: Whether somebody reads from it.
        retained: How many bytes of log the server keeps for the slot.
        lag: How many bytes of log lie behind what is stored; None: that cannot be told.
    """

    position: str
    slot: str = ""
    slot_active: bool = False
    retained: int = 0
    lag: int | None = None


@runtime_checkable
class Observable(Protocol):
    """A source that can tell where its server is, beside the flow that reads it."""

    def observe(self, stored: Checkpoint | None) -> Observation:
        """Ask the server, changing nothing there.

        Args:
            stored: What the stream holds; None: nothing yet.

        Raises:
            ConfigError: The server cannot be asked.
            RetryableError: The server cannot be reached.
            FatalError: `stored` is of another type of source.
        """
        ...


class Delivered(NamedTuple):
    """A change as it lies in a stream.

    Attributes:
        sequence: The stream's sequence of the message.
        subject: Where it lies: `CDC.<source>.<topic>.<partition>`.
        position: As in `Change`.
        key: As in `Change`.
        table: As in `Change`.
        transaction: As in `Change`.
        last: As in `Change`.
        envelope: As in `Change`; large rows are already resolved.
        unavailable: As in `Change`.
        json_nulls: As in `Change`.
        failed: As in `Change`.
    """

    sequence: int
    subject: str
    position: str
    key: str | None
    table: TableSchema | None
    transaction: str
    last: bool
    envelope: bytes
    unavailable: tuple[str, ...] = ()
    json_nulls: tuple[str, ...] = ()
    failed: str = ""


class Share(msgspec.Struct, frozen=True):
    """What one consumer of a sink reads: subjects of one stream.

    Attributes:
        sink: The sink's name.
        stream: The stream's name.
        created: When that stream was created (RFC 3339): a stream that was deleted and made again
            is another one.
        subjects: The filter subjects; each keeps an offset of its own.
        end: Set when the stream was truncated and the owner accepts that: the sequence behind
            which it was cut off. What the target holds of later ones does not count, they will be
            given anew.
        begin: The offset of a subject of which the target knows nothing yet, not even by an earlier
            stream of the same name.
    """

    sink: str
    stream: str
    created: str
    subjects: tuple[str, ...]
    end: int | None = None
    begin: int = 0


class Claim(msgspec.Struct, frozen=True):
    """The right to write a share's changes, from the moment it was taken until the next one.

    Attributes:
        share: What was claimed.
        epoch: Grows with each claim; the target refuses writers of an older epoch.
        offsets: The last sequence stored in the target for each subject of the share; 0: none. A
            subject that an earlier share stood for as well, in other words, counts as stored; a
            narrower one, which is further than the share's own, is added. `subjects.stored_upto`
            reads it.
        forgotten: Names the offset that was dropped because it belonged to an earlier stream of the
            same name; empty otherwise.
        fence: Names the right to store dead letters of the share, which is claimed with it; 0:
            none was claimed yet.
    """

    share: Share
    epoch: int
    offsets: dict[str, int]
    forgotten: str = ""
    fence: int = 0


@dataclass(slots=True)
class Batch:
    """Messages of one share in stream order.

    Attributes:
        claim: The writer's right to write.
        changes: May be empty: then only the offset advances. Several may have the same sequence,
            where a sink's transform has made several of one; they stand together.
        upto: Every message of the share up to this sequence is in this batch or an earlier one.
        complete: No transaction of the source goes across this sequence: every message of it, of
            whatever topic, is at or below it or behind it. The largest such sequence that is known
            up to `upto`; of use to a sink that applies transactions whole.
        origins: By sequence, what lies in the stream where a sink's transform has made other
            changes of it; no business of a sink.
    """

    claim: Claim
    changes: list[Delivered]
    upto: int
    complete: int = 0
    origins: dict[int, Delivered] = field(default_factory=dict)


class SinkWriter(Protocol):
    """Writes one share's batches, in order. Used by one thread at a time.

    After an error that `write`, `flush` or `replay` has raised a writer is of no use any more: it
    is closed, and `Sink.open` makes another one for the same claim.
    """

    @property
    def stored(self) -> int:
        """Everything that was written up to this sequence is stored together with its offset.

        Never goes back; may be read at any time, also after an error. 0 before the first.
        """
        ...

    def write(self, batch: Batch) -> None:
        """Take a batch over; it may still be under way when the call returns.

        Blocks while too much is under way. Transient failures are retried inside, without end.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: A change of this or an earlier batch is refused for good, its
                `sequence` named where it is known; `stored` lies below it. A target without
                transactions may have taken later changes already: writing them again does no harm.
        """
        ...

    def flush(self) -> None:
        """Return once everything written is stored together with its offset. Raises as `write`.

        A sink that applies transactions whole may keep the beginning of one back.
        """
        ...

    def replay(self, changes: Sequence[Delivered]) -> None:
        """Store dead letters, behind everything that was written; the offset does not move.

        Returns when they are stored, all of them. A target with transactions takes each of them
        once: one that it has been given before, by an earlier call whose caller did not live to
        hear of it, is left out. Transient failures are retried inside, without end.

        Args:
            changes: In the order in which they are to be applied. Their sequences lie at or below
                the offset; changes of the same sequence stand together.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: One of them is refused again, its `sequence` named where it is known;
                a target with transactions has stored none of them.
        """
        ...

    def close(self) -> None:
        """Let go of the connection without waiting. Never raises."""
        ...


class OffsetStore(Protocol):
    """Keeps claims and offsets for sinks whose target cannot. Usable from any thread.

    What the sink stores and its offset are two steps then: after a crash the changes behind the
    stored offset are delivered once more.
    """

    def claim(self, share: Share) -> Claim:
        """Take the next epoch of a share and read where it stands; older claims are fenced.

        Raises:
            ConfigError: The store cannot be used.
            RetryableError: It cannot be reached.
        """
        ...

    def store(self, claim: Claim, upto: int) -> None:
        """Note that the target holds every message of the share up to `upto`; never goes back.

        Raises:
            FencedError: A newer claim exists.
            RetryableError: The store cannot be reached; the same call may be repeated.
        """
        ...

    def read(self, share: Share) -> dict[str, int]:
        """As `Sink.offsets`. Raises as `claim`."""
        ...

    def reset(self, share: Share, upto: int) -> None:
        """As `Sink.reset`. Raises as `claim`."""
        ...


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What the flow gives to a sink.

    Attributes:
        stop: Once set, a writer no longer waits for a target that is away: `write`, `flush` and
            `replay` raise RetryableError.
        offsets: For a target that cannot hold its own.
    """

    stop: Event
    offsets: OffsetStore


class Sink(Protocol):
    """A configured sink."""

    @property
    def whole_transactions(self) -> bool:
        """Whether it applies the source's transactions whole, and so needs `Batch.complete`."""
        ...

    def check(self) -> list[WaxtapError]:
        """What would keep the sink from starting; changes nothing anywhere.

        A sink of the same name that runs is not disturbed. Never raises a WaxtapError: a target
        that cannot be reached is a finding as well.

        Returns:
            One clear error for each thing that was found; empty: it can start.
        """
        ...

    def claim(self, share: Share) -> Claim:
        """Become the only writer of the share, and read where it stands.

        Ends older writers: once it has returned, none of theirs commits any more.

        Raises:
            ConfigError: The target is not set up for it.
            RetryableError: The target cannot be reached.
        """
        ...

    def open(self, claim: Claim) -> SinkWriter:
        """Make the writer for a claim; it need not run in the process that claimed."""
        ...

    def offsets(self, share: Share) -> dict[str, int]:
        """Read from where a claim would go on (`Claim.offsets`), without disturbing anybody.

        Raises:
            ConfigError: The target cannot be used.
            RetryableError: The target cannot be reached.
        """
        ...

    def reset(self, share: Share, upto: int) -> None:
        """Let the next claim go on behind `upto`, forwards or backwards, for every subject.

        Ends older writers as `claim` does. What the target holds stays: changes that it is given
        once more find their own traces there.

        Raises:
            ConfigError: The target is not set up for it.
            RetryableError: The target cannot be reached.
        """
        ...
