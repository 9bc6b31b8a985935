"""What sinks and delivery flows agree on.

    Sink.claim(share) -> Claim; Sink.open(claim) -> SinkWriter     stream -> target

A `Batch` is the unit of a delivery flow: stored messages in stream order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from connectors.contracts.changes import Delivered
    from connectors.errors import WaxtapError


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
