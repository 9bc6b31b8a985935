"""Dead letters: changes that a sink has put aside, and what is asked of them.

A change that its target refuses for good becomes a dead letter. Later changes of the same row are
parked behind it, as letters too, so that a replay can deliver them in order.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Claim


class State(StrEnum):
    """Why a letter is one."""

    FAILED = "failed"  # it was refused, and later changes of its row wait behind it
    PARKED = "parked"  # it waits behind an earlier letter
    SKIPPED = "skipped"  # it was refused, and later changes of its row went on


class Reason(NamedTuple):
    """What was wrong with a change.

    Attributes:
        kind: The class of the error.
        code: Stable dotted identifier.
        message: One line, without the row's values.
    """

    kind: str
    code: str
    message: str


class Letter(NamedTuple):
    """A change to be put aside; what is stored of it is a copy of its message.

    Attributes:
        sequence: Of its message in the stream.
        topic: Where it lies.
        rows: The rows that it touches, as `parking.row` names them: later changes of these wait.
        state: Why.
        reason: What was wrong; of a parked one, behind which letter it waits.
    """

    sequence: int
    topic: str
    rows: tuple[int, ...]
    state: State
    reason: Reason


class Head(NamedTuple):
    """What the headers of a stored letter say.

    Attributes:
        sink: Whose it is.
        stream: The stream that its message came from.
        created: When that stream was created.
        sequence: Of the message in that stream.
        subject: Where the message lay.
        rows: As in `Letter`.
        state: As in `Letter`.
        reason: As in `Letter`; after a replay that failed, the latest.
        attempts: How often its delivery was tried; 0 while it is parked.
        failed_at: When it was put aside, or tried last (RFC 3339).
        position: As in `contracts.Change`.
        key: As in `contracts.Change`.
        large: Whether the row lies in the object store.
    """

    sink: str
    stream: str
    created: str
    sequence: int
    subject: str
    rows: tuple[int, ...]
    state: State
    reason: Reason
    attempts: int
    failed_at: str
    position: str
    key: str | None
    large: bool


class Outstanding(NamedTuple):
    """What there is of a share's dead letters.

    Attributes:
        letters: Sequence, topic and rows of each, in the order of the sequences.
        truncated: The last sequence at which a table of a topic was emptied behind a letter.
    """

    letters: Iterable[tuple[int, str, tuple[int, ...]]]
    truncated: dict[str, int]


class LetterStore(Protocol):
    """Keeps the dead letters of one claim. Waits for a store that is away or full, without end.

    Every method raises RetryableError when the flow stops meanwhile.
    """

    def load(self) -> Outstanding:
        """What is there at the beginning."""
        ...

    def put(self, letters: Sequence[Letter]) -> None:
        """Return once all of these are stored; one that is there already is stored once.

        Raises:
            FencedError: A newer claim exists.
            GapError: The message of one has expired meanwhile.
        """
        ...

    def mark(self, topic: str, sequence: int) -> None:
        """Note that a table of a topic is emptied at `sequence`. Raises FencedError as `put`."""
        ...

    def get(self, sequences: Sequence[int]) -> list[Delivered | None]:
        """The changes as they lay in their stream; None for a letter that is gone."""
        ...

    def failed_again(self, sequence: int, reason: Reason) -> None:
        """Note a further attempt that failed. Raises FencedError as `put`."""
        ...

    def delete(self, sequences: Sequence[int]) -> None:
        """Delete letters; one that is gone already is fine."""
        ...

    def check(self) -> None:
        """Raise FencedError if a newer claim exists."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class LetterRequest(msgspec.Struct, frozen=True):
    """What the owner wants done with letters of one sink and stream.

    Attributes:
        action: Deliver them once more, or delete them.
        created: When the stream was created; letters of another one are left alone.
        sequences: Which.
        reply: Where the answer goes.
    """

    action: Literal["replay", "discard"]
    created: str
    sequences: list[int]
    reply: str = ""


class LetterAnswer(msgspec.Struct):
    """What came of a request, in letters.

    Attributes:
        replayed: Delivered, and no letters any more.
        failed: Refused again.
        waiting: Not tried, since they wait behind one that was refused again.
        discarded: Deleted undelivered.
        gone: Were no letters any more.
        error: What the first refusal said.
    """

    replayed: int = 0
    failed: int = 0
    waiting: int = 0
    discarded: int = 0
    gone: int = 0
    error: str = ""


class Asked(NamedTuple):
    """A request on its way through the dataflow.

    Attributes:
        claim: Of the share that it concerns.
        sequence: Of the request in its stream, which holds it until it is carried out.
        request: What is wanted.
    """

    claim: Claim
    sequence: int
    request: LetterRequest
