"""What a snapshot asks of whoever reads the tables, and what is answered.

A connector implements `Table`, `Block` and `TableReader`; `Log` by the decoder of its log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk
    from connectors.snapshot.touches import Visibility


class Table(Protocol):
    """What is read from beginning to end by one order of its rows: a table, or a part of one."""

    @property
    def id(self) -> str:
        """Sorts as text in the order in which tables are read; new tables come last."""
        ...

    @property
    def schema(self) -> str:
        """The table's namespace, as changes name it."""
        ...

    @property
    def name(self) -> str:
        """The table's name, as changes name it."""
        ...

    @property
    def label(self) -> str:
        """How messages name it."""
        ...

    @property
    def estimated(self) -> int:
        """How many rows it has by the server's statistics."""
        ...


AnyTable = TypeVar("AnyTable", bound=Table)


@dataclass(frozen=True)
class Survey(Generic[AnyTable]):
    """What there is to read.

    Attributes:
        tables: In the order of their ids.
        running: The transactions that had not ended, by the names that changes have for them: one
            of them may be in the stream already.
        synchronous: Whether commits may wait for a standby: then one may be in the log for long
            before it has ended.
    """

    tables: tuple[AnyTable, ...]
    running: tuple[str, ...]
    synchronous: bool


@dataclass(frozen=True, eq=False)
class Request(Generic[AnyTable]):
    """Rows that are to be read.

    Attributes:
        table: A table.
        after: Behind which row, as `Block.after` tells it; empty: from the table's beginning.
        limit: How many rows at most.
        until: Up to and with which row; empty: to the table's end.
        following: The tables that are read after this one.
    """

    table: AnyTable
    after: tuple[str, ...]
    limit: int
    until: tuple[str, ...] = ()
    following: tuple[AnyTable, ...] = ()


@dataclass(frozen=True, eq=False)
class Cut(Generic[AnyTable]):
    """A question: which row is the `limit`-th one behind another.

    Attributes:
        table: A table.
        after: As in `Request`.
        limit: How many rows.
    """

    table: AnyTable
    after: tuple[str, ...]
    limit: int


@dataclass(frozen=True)
class Bound(Generic[AnyTable]):
    """Its answer.

    Attributes:
        cut: The question.
        until: The row, as `Request.until` names it; empty: there are no more rows than that; None:
            the table cannot be cut.
    """

    cut: Cut[AnyTable]
    until: tuple[str, ...] | None


@dataclass(frozen=True)
class Answered(Generic[AnyTable]):
    """A block, and what was asked for."""

    request: Request[AnyTable]
    block: Block


class Block(Protocol):
    """Rows of a table as one snapshot of the database has them."""

    @property
    def visible(self) -> Visibility:
        """What the snapshot sees."""
        ...

    @property
    def log_end(self) -> int:
        """Everything that it sees stands before this place in the log; later places are larger."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the table has no rows behind them."""
        ...

    @property
    def rows(self) -> int:
        """How many there are."""
        ...

    def after(self, row: int) -> tuple[str, ...]:
        """What the row with this number is found by, for a request that goes on behind it."""
        ...

    @property
    def behind(self) -> tuple[str, ...]:
        """The same for all that was read: from where the table goes on."""
        ...

    def render(
        self,
        start: int,
        *,
        place: tuple[str, int],
        first: bool,
        outdated: Callable[[Change], bool] | None,
    ) -> tuple[list[Change], int]:
        """Make changes of as many rows as one chunk may hold.

        Args:
            start: The number of the first row that is wanted.
            place: What positions begin with, and the index of the first one behind it.
            first: That row is the snapshot's first one.
            outdated: Whether a row is to be left out; None: none is.

        Returns:
            The changes, and the number of the first row that was not used.

        Raises:
            FatalError: A row does not fit the table.
        """
        ...


class TableReader(Protocol[AnyTable]):
    """Reads tables over one connection, which it opens when it is needed.

    Used by one thread at a time. What raises a RetryableError is asked again after `disconnect`.
    """

    def survey(self) -> Survey[AnyTable]:
        """What there is to read.

        Raises:
            WaxtapError: It cannot be told.
        """
        ...

    def cut(self, cut: Cut[AnyTable]) -> tuple[str, ...] | None:
        """As `Bound.until`.

        Raises:
            WaxtapError: The table cannot be read.
        """
        ...

    def read(self, request: Request[AnyTable]) -> Block:
        """Read rows in a snapshot of the database.

        Raises:
            WaxtapError: The table cannot be read.
        """
        ...

    def nudge(self) -> None:
        """Have the server write down the end of its log, where it may be waiting for more.

        Raises:
            WaxtapError: The server did not answer.
        """
        ...

    def stop(self) -> None:
        """What is being read is not wanted any more; called by another thread. Never raises."""
        ...

    def disconnect(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class Log(Protocol):
    """What decodes the log, as far as rows are put between its transactions."""

    def place(self) -> tuple[str, int]:
        """What the positions of rows begin with that stand here, and their first one's index.

        Raises:
            FatalError: There are no indexes left.
        """
        ...

    def insert(self, changes: list[Change], more: Mapping[str, str]) -> Chunk:
        """A chunk of rows that were read beside the log.

        Args:
            changes: Their positions are those of `place`.
            more: What the checkpoint's state holds besides from now on.
        """
        ...
