"""What sources and capture flows agree on.

    Source.open(resume) -> SourceReader.read() -> Chunk ...        log -> stream

A `Chunk` is the unit that travels through a capture flow: changes in log order, cut at transaction
boundaries wherever a transaction is small enough, with the state from which the source resumes
behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from threading import Event
    from typing import BinaryIO

    from connectors.contracts.backfills import Backfills
    from connectors.contracts.changes import Change
    from connectors.contracts.inbox import Inbox
    from connectors.errors import WaxtapError


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
        sink: The only sink that is given the changes; empty: all are.
    """

    source: str
    changes: list[Change]
    checkpoint: Checkpoint
    resume: dict[str, str]
    sink: str = ""


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


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What the flow gives to a source.

    Attributes:
        stop: Once set, the flow ends: nothing is waited for any more.
        state: For a source whose server does not remember for it.
        inbox: For a source that is pushed to.
        past: Set where the source is read only to repeat what its stream holds already, up to this
            checkpoint: what has no server that remembers asks for nothing new then.
        backfills: What is asked of it while it runs; None: nobody can ask.
        ddl: Whether the DDL statements that its log holds are to be among its changes.
    """

    stop: Event
    state: StateStore
    inbox: Inbox
    past: Checkpoint | None = None
    backfills: Backfills | None = None
    ddl: bool = False


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

    def owned(self) -> list[str]:
        """What `drop` removes if it is there, such as `slot waxtap_shop`; asks nobody."""
        ...

    def drop(self) -> list[str]:
        """Remove what the source has created on its server, such as a slot; return what it was.

        Raises:
            ConfigError: It is in use, or not this source's own.
            RetryableError: The server cannot be reached.
        """
        ...


@runtime_checkable
class Finite(Protocol):
    """A reader whose source may come to an end."""

    @property
    def ended(self) -> bool:
        """Whether nothing will ever come any more, and everything that came is confirmed."""
        ...


class Observation(NamedTuple):
    """Where a source's server is.

    Attributes:
        position: Of the end of its log: an LSN, a GTID set, a file and an offset.
        slot: What keeps the log there for the source; empty: nothing does.
        slot_active: Whether somebody reads from it, from a beginning that is settled.
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


class LogHealth(NamedTuple):
    """How far a source's server is from losing log that the source still needs, or its disk.

    Attributes:
        retained: How many bytes of log the server keeps for the source; 0: that cannot be told.
        limit: How many it may become before somebody acts; 0: any number.
        endangered: Whether the owner should look after it: half of what may be is reached, or
            something is lost already.
        message: What is the matter; empty: nothing is.
        dropped: What was given up to save the server; empty: nothing was.
    """

    retained: int = 0
    limit: int = 0
    endangered: bool = False
    message: str = ""
    dropped: str = ""


@runtime_checkable
class Guarded(Protocol):
    """A source whose server's log wants looking after, whether the source is being read or not."""

    def guard(self) -> LogHealth | None:
        """Look at the log that the server keeps, and act as the configuration says.

        Usable from any thread, beside an open reader and beside another process.

        Returns:
            How it is; None: the server keeps nothing for the source.

        Raises:
            ConfigError: The server cannot be asked.
            RetryableError: The server cannot be reached, or does not let go yet.
        """
        ...
