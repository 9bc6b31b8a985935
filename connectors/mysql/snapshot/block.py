"""Rows of a MySQL or MariaDB table as one snapshot of the database has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connectors.mysql.binlog.position import log_place
from connectors.mysql.snapshot.row_store import RowStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.changes import Change
    from connectors.mysql.snapshot.rendering import TableRenderer
    from connectors.mysql.snapshot.tables import Listed
    from connectors.snapshot.reading import Request
    from connectors.snapshot.touches import Visibility


@dataclass(slots=True)
class TableBlock:
    """Implements `snapshot.reading.Block`.

    Attributes:
        request: What was asked for.
        visible: As in `Block`.
        file: The log file that was written behind all that the snapshot sees, and
        offset: where its end was.
        read_ms: When it was taken, Unix time in milliseconds.
        store: The rows.
        complete: As in `Block`.
        final: None of the tables behind it has a row either.
        renderer: Makes changes of the rows; None: the table is gone.
        end: Behind which row the next request begins where that is not the last one that was read.
    """

    request: Request[Listed]
    visible: Visibility
    file: str
    offset: int
    read_ms: int
    store: RowStore = field(default_factory=RowStore)
    complete: bool = False
    final: bool = False
    renderer: TableRenderer | None = None
    end: tuple[str, ...] = ()

    @property
    def log_end(self) -> int:
        """As `Block.log_end`; see `position.log_place`."""
        return log_place(self.file, self.offset)

    @property
    def rows(self) -> int:
        """As `Block.rows`."""
        return len(self.store)

    def after(self, row: int) -> tuple[str, ...]:
        """As `Block.after`; empty: from the beginning, where a table has no key."""
        return self.renderer.after(self.store, row) if self.renderer is not None else ()

    @property
    def behind(self) -> tuple[str, ...]:
        """As `Block.behind`."""
        if self.end:
            return self.end
        return self.after(self.rows - 1) if self.rows else self.request.after

    def render(
        self,
        start: int,
        *,
        place: tuple[str, int],
        first: bool,
        outdated: Callable[[Change], bool] | None,
    ) -> tuple[list[Change], int]:
        """As `Block.render`."""
        if self.renderer is None:
            return [], self.rows
        return self.renderer.render(
            self.store,
            start,
            place=place,
            read=(self.read_ms, self.file, self.offset),
            first=first,
            last=self.final,
            outdated=outdated,
        )
