"""What is read before it can be given out: some blocks, in the order in which they will be.

With several readers the ranges that they read are cut beforehand, so that each knows where to begin
while the one before it is still being read. Where a range proves larger than was thought, what was
read behind it is dropped, and reading goes on from where it ended.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from connectors.snapshot.reading import Answered, AnyTable, Block, Bound, Cut, Request
from connectors.snapshot.touches import Touches

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.snapshot.chunk_reader import ChunkReader
    from connectors.snapshot.progress import Progress
    from connectors.snapshot.touches import Emitted

# Large enough that a log which is read with some delay does not hold the snapshot up.
ROWS = 16_384
_FEWEST = 64


@dataclass(slots=True)
class Asked(Generic[AnyTable]):
    """Rows that were asked for.

    Attributes:
        request: How.
        touches: What happens to their table meanwhile.
        block: The rows; None: they are being read.
        used: How many of them were given out.
    """

    request: Request[AnyTable]
    touches: Touches
    block: Block | None = None
    used: int = 0

    @property
    def fell_short(self) -> bool:
        """Whether fewer rows were read than the next request counts on."""
        if self.block is None:
            return False
        if self.request.until:
            return self.block.behind != self.request.until
        return not self.block.complete


class ReadAhead(Generic[AnyTable]):
    """Asks for blocks, one more than can be read at once.

    Args:
        reader: Reads them.

    Attributes:
        tables: What there is to read; None: not known yet.
    """

    def __init__(self, reader: ChunkReader[AnyTable]) -> None:
        self.tables: tuple[AnyTable, ...] | None = None
        self._reader = reader
        self._most = self._limit = ROWS
        self._asked: deque[Asked[AnyTable]] = deque()
        # From where the next request goes on; None: that is known once the last one is answered.
        self._frontier: Progress | None = None
        self._cut: Cut[AnyTable] | None = None

    @property
    def first(self) -> Asked[AnyTable] | None:
        """Whose rows are given out next."""
        return self._asked[0] if self._asked else None

    def note(self, changes: list[Change]) -> None:
        """These changes of the log are given out."""
        for asked in self._asked:
            asked.touches.note(changes)

    def next_table(self, progress: Progress) -> AnyTable | None:
        """Where reading goes on; None: nothing is left."""
        return next((t for t in self.tables or () if progress.begins(t.id)), None)

    def ask(self, progress: Progress, emitted: Emitted) -> None:
        """Keep the readers busy.

        Args:
            progress: How far it is with what was given out.
            emitted: What may not be visible to them.
        """
        while len(self._asked) <= self._reader.readers and self._cut is None:
            frontier = self._begin(progress)
            table = self.next_table(frontier) if frontier is not None else None
            if frontier is None or table is None:
                return
            after = frontier.after if frontier.table == table.id else ()
            if self._reader.readers > 1:
                self._cut = Cut(table, after, self._limit)
                self._reader.cut(self._cut)
                return
            self._request(table, after, (), self._limit, emitted)
            self._frontier = None

    def bound(self, bound: Bound[AnyTable], progress: Progress, emitted: Emitted) -> None:
        """A range was cut; arguments as those of `ask`."""
        cut = bound.cut
        if cut is not self._cut:
            return
        self._cut = None
        table, until = cut.table, bound.until
        if until is None:
            self._request(table, cut.after, (), cut.limit, emitted)
            self._frontier = None
            return
        # Rows may have been added since it was cut.
        self._request(table, cut.after, until, 2 * cut.limit, emitted)
        if until:
            self._frontier = progress.reached(table.id, until, 0)
        else:
            self._frontier = progress.ended(table.id, 0)

    def arrived(self, answered: Answered[AnyTable]) -> Asked[AnyTable] | None:
        """Rows were read; None: nobody wants them any more."""
        asked = next((each for each in self._asked if each.request is answered.request), None)
        if asked is None:
            return None
        asked.block = answered.block
        if asked.fell_short:
            while self._asked[-1] is not asked:
                self._asked.pop()
            self._frontier, self._cut = None, None
            if 0 < asked.block.rows < asked.request.limit:
                # Wide rows: the next block need not be cut.
                self._limit = asked.block.rows
        return asked

    def used_up(self) -> None:
        """The first block was given out whole."""
        self._asked.popleft()
        self._limit = min(self._most, self._limit * 2)

    def shrink(self) -> None:
        """Ask for fewer rows at once."""
        self._limit = min(self._most, max(_FEWEST, self._limit // 4))

    def restrict(self, most: int) -> None:
        """Ask for so many rows at once, and no more; 0: for as many as usual."""
        self._most = self._limit = min(most, ROWS) or ROWS

    def drop(self) -> None:
        """Forget what was read, and what is being read."""
        self._asked.clear()
        self._frontier, self._cut = None, None

    def _begin(self, progress: Progress) -> Progress | None:
        if self._frontier is not None:
            return self._frontier
        if not self._asked:
            return progress
        last = self._asked[-1]
        if last.block is None or last.touches.spoilt:
            return None
        if last.block.complete:
            return progress.ended(last.request.table.id, 0)
        return progress.reached(last.request.table.id, last.block.behind, 0)

    def _request(
        self,
        table: AnyTable,
        after: tuple[str, ...],
        until: tuple[str, ...],
        limit: int,
        emitted: Emitted,
    ) -> None:
        following = tuple(t for t in self.tables or () if t.id > table.id)
        request = Request(table, after, limit, until, following)
        touches = Touches(table.schema, table.name, emitted.snapshot())
        self._asked.append(Asked(request, touches))
        self._reader.ask(request)
