"""What is asked of a `ChunkReader`, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.postgres.snapshot.rendering import TableRenderer
    from connectors.postgres.snapshot.tables import Published
    from connectors.postgres.snapshot.visibility import Visible


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to read.

    Attributes:
        tables: In the order in which they are read.
        running: The transactions that had not ended, by the names that changes have for them.
        synchronous: Whether commits may wait for a standby: then one may be in the log for long
            before it has ended.
    """

    tables: tuple[Published, ...]
    running: tuple[str, ...]
    synchronous: bool


@dataclass(frozen=True, slots=True)
class Request:
    """What to read.

    Attributes:
        table: A table.
        after: Behind which row, as `Block.after` tells it; empty: from the table's beginning.
        limit: How many rows at most.
        following: The tables that are read after this one.
    """

    table: Published
    after: tuple[str, ...]
    limit: int
    following: tuple[Published, ...] = ()


@dataclass(slots=True)
class Block:
    """Rows of a table as one snapshot of the database has them.

    Attributes:
        request: What was asked for.
        lines: The rows, as `copy_text` has them.
        complete: The table has no rows behind them.
        final: None of the tables behind it has a row either.
        visible: What the snapshot sees.
        wal_end: Everything that it sees stands before this LSN in the log.
        read_ms: When it was taken, Unix time in milliseconds.
        renderer: Makes changes of the lines; None: the table is gone.
        leading: As in `TableRenderer.render`.
        key: Where in a line the values are that page the table.
        filenode: Where rows are paged by their place: the file in which that is.
        end: Where rows are paged by their place: behind which row the next chunk begins when this
            one is used up.
    """

    request: Request
    visible: Visible
    wal_end: int
    read_ms: int
    lines: list[str] = field(default_factory=list)
    complete: bool = False
    final: bool = False
    renderer: TableRenderer | None = None
    leading: int = 0
    key: tuple[int, ...] = ()
    filenode: str = ""
    end: tuple[str, ...] = ()
