"""Rows of a PostgreSQL table as one snapshot of the database has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connectors.postgres.snapshot import copy_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.changes import Change
    from connectors.postgres.snapshot.rendering import TableRenderer
    from connectors.postgres.snapshot.tables import Published
    from connectors.postgres.snapshot.visibility import Visible
    from connectors.snapshot.reading import Request


@dataclass(slots=True)
class TableBlock:
    """Implements `snapshot.reading.Block`.

    Attributes:
        request: What was asked for.
        visible: As in `Block`.
        log_end: As in `Block`: an LSN.
        read_ms: When it was taken, Unix time in milliseconds.
        lines: The rows, as `copy_text` has them.
        complete: As in `Block`.
        final: None of the tables behind it has a row either.
        renderer: Makes changes of the lines; None: the table is gone.
        leading: As in `TableRenderer.render`.
        key: Where in a line the values are that page the table.
        filenode: Where rows are paged by their place: the file in which that is.
        end: Behind which row the next request begins where that is not the last one that was read.
    """

    request: Request[Published]
    visible: Visible
    log_end: int
    read_ms: int
    lines: list[str] = field(default_factory=list)
    complete: bool = False
    final: bool = False
    renderer: TableRenderer | None = None
    leading: int = 0
    key: tuple[int, ...] = ()
    filenode: str = ""
    end: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """As `Block.rows`."""
        return len(self.lines)

    def after(self, row: int) -> tuple[str, ...]:
        """As `Block.after`."""
        from_line = copy_text.at(self.lines[row], self.key)
        return (self.filenode, *from_line) if self.filenode else from_line

    @property
    def behind(self) -> tuple[str, ...]:
        """As `Block.behind`."""
        if self.end:
            return self.end
        return self.after(len(self.lines) - 1) if self.lines else self.request.after

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
            return [], len(self.lines)
        return self.renderer.render(
            self.lines,
            start,
            place=place,
            read_ms=self.read_ms,
            first=first,
            last=self.final,
            leading=self.leading,
            outdated=outdated,
        )
