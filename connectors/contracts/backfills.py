"""What is agreed on between whoever asks for a backfill and the flow that carries it out.

A backfill reads rows that are in a source's tables already, once more or for the first time, while
the flow runs. What is asked for and what has become of it are two things, each with one writer.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

# The id of the snapshot that a source takes when it starts for the first time.
INITIAL = "initial"


class Wish(Enum):
    """What is to become of a backfill."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Stage(Enum):
    """What has become of a backfill."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing will become of it any more."""
        return self in (Stage.DONE, Stage.CANCELLED, Stage.FAILED)


class BackfillRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked for.

    Attributes:
        id: Its name among those of its source.
        created: When it was asked for, in nanoseconds since 1970: they are carried out in this
            order.
        tables: Patterns, within what the source captures.
        where: A condition in the source's SQL that rows must fulfil; empty: none.
        sink: The only sink that is given the rows; empty: all are.
        rate: How many rows a second at most; 0: as many as can be stored.
        wish: What is to become of it.
        author: Who asked for it.
    """

    id: str
    created: int
    tables: tuple[str, ...]
    where: str = ""
    sink: str = ""
    rate: int = 0
    wish: Wish = Wish.RUN
    author: str = ""


class BackfillStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of it. Times are in nanoseconds since 1970, 0: not yet.

    Attributes:
        stage: How far it is.
        rows: How many rows were read.
        estimated: How many there are, by the server's statistics; 0: that is not known.
        table: The table that is being read.
        rate: Rows a second, of late.
        seconds_left: By rate and estimate; None: that cannot be told.
        error: Why it failed.
        started: When it began.
        ended: When nothing more became of it.
    """

    stage: Stage
    rows: int = 0
    estimated: int = 0
    table: str = ""
    rate: float = 0.0
    seconds_left: float | None = None
    error: str = ""
    started: int = 0
    ended: int = 0


class Backfills(Protocol):
    """What the flow of one source hears about its backfills, and where it tells of them.

    Nothing waits for the network. Used by one thread.
    """

    def open(self) -> Sequence[BackfillRequest]:
        """Those that nothing final was told about, in their order, as of about a second ago."""
        ...

    def known(self, backfill: str) -> BackfillStatus | None:
        """What was told of one before, also by an earlier process."""
        ...

    def tell(self, backfill: str, status: BackfillStatus) -> None:
        """What has become of one.

        It is stored soon; a final one in any case, and until it is, `open` has the request.
        """
        ...

    def close(self) -> None:
        """Let go of the connection, once what was told is stored or that takes too long."""
        ...
