"""A snapshot that is taken while the log is read: which rows may be given out, and when.

    survey → [ask → block → unit, unit, ...] for each table → done

Blocks are read in threads beside the log. The rows of each are given out in units of one chunk, at
boundaries between transactions, once the log has been read past all that the block's snapshot of
the database sees; without the rows for which something newer was given out (`touches`). The next
blocks are read meanwhile (`read_ahead`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic

import structlog

from connectors.snapshot.copying import Copying
from connectors.snapshot.job import Job
from connectors.snapshot.read_ahead import ReadAhead
from connectors.snapshot.reading import Answered, AnyTable, Bound, Survey
from connectors.snapshot.throttle import Throttle
from connectors.snapshot.touches import INVISIBLE, Emitted

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk
    from connectors.snapshot.chunk_reader import ChunkReader
    from connectors.snapshot.copying import Copied
    from connectors.snapshot.progress import Progress
    from connectors.snapshot.read_ahead import Asked
    from connectors.snapshot.reading import Block, Log

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# A commit that waits for no standby is visible well within it.
_VISIBLE_S = 1.0
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_PATIENCE_S = 10.0
# The end of an idle server's log may wait in memory for long; see `TableReader.nudge`.
_NUDGE_S = 0.5


class Snapshot(Generic[AnyTable]):
    """The snapshot of one source.

    Args:
        source: The source's name.
        reader: Reads the tables.
        progress: From where to go on.
        job: What it is for.
        rate: How many rows a second are given out at most; 0: any number.
    """

    def __init__(
        self,
        source: str,
        reader: ChunkReader[AnyTable],
        progress: Progress,
        job: Job | None = None,
        rate: int = 0,
    ) -> None:
        self._source, self._reader, self._progress = source, reader, progress
        self._job = job or Job()
        self._emitted = Emitted()
        self._ahead = ReadAhead(reader)
        self._suspects: set[str] = set()
        self._suspects_until = 0.0
        self._not_before = 0.0
        self._spoilt_since = 0.0
        self._told = False
        self._waits_since = 0.0
        self._surveying = True
        self._copying = Copying(source, progress, self._job.id)
        self._throttle = Throttle()
        self.throttle(rate)
        reader.survey()

    @property
    def progress(self) -> Progress:
        """How far it is with what was given out."""
        return self._progress

    @property
    def copied(self) -> Copied:
        """What the owner is told of it."""
        return self._copying.copied

    def throttle(self, rate: int) -> None:
        """Give out so many rows a second at most from now on; 0: any number."""
        if rate == self._throttle.rate:
            return
        self._throttle.change(rate)
        # What waits for long is soon out of date.
        self._ahead.drop()
        self._ahead.restrict(rate)

    @property
    def done(self) -> bool:
        """Whether everything was given out."""
        return self._progress.done

    @property
    def ready(self) -> bool:
        """Whether there are rows to give out, once the log has got far enough."""
        first = self._ahead.first
        return first is not None and first.block is not None and self._throttle.open

    def note(self, changes: list[Change]) -> None:
        """These changes of the log are given out."""
        self._emitted.add(changes)
        if self._suspects:
            self._suspects.difference_update(change.transaction for change in changes)
        self._ahead.note(changes)

    def interrupt(self) -> None:
        """The log is read again from the last checkpoint: what was read beside it is dropped."""
        self._ahead.drop()

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        self._reader.stop()
        self._copying.close()

    def work(self) -> None:
        """Take what was read, and ask for more.

        Raises:
            WaxtapError: A table cannot be read.
        """
        while (answer := self._reader.take()) is not None:
            match answer:
                case Survey():
                    self._surveyed(answer)
                case Bound():
                    self._ahead.bound(answer, self._progress, self._emitted)
                case Answered():
                    self._arrived(answer)
        first = self._ahead.first
        if first is not None and first.block is not None and first.touches.spoilt:
            self._spoil(first)
        if self._ahead.tables is None or self._surveying or time.monotonic() < self._not_before:
            return
        if self._emitted.overflowed:
            self._ahead.drop()
            self._emitted.restart(())
            self._surveying = True
            self._reader.survey()
            return
        self._ahead.ask(self._progress, self._emitted)

    def due(self, reached: int) -> bool:
        """Whether rows can be given out at the next boundary.

        Args:
            reached: The place up to which the log is read, as `Block.log_end` counts it.
        """
        first = self._ahead.first
        if first is None or first.block is None:
            return self._empty
        if not self._throttle.open:
            return False
        if reached >= first.block.log_end:
            self._waits_since = 0.0
            return True
        now = time.monotonic()
        self._waits_since = self._waits_since or now
        if now - self._waits_since > _NUDGE_S:
            self._waits_since = now
            self._reader.nudge()
        return False

    def give(self, log: Log) -> Chunk | None:
        """The next rows, when the log is at a boundary; None: they must be read again."""
        first = self._ahead.first
        if first is None:
            return self._finish(log) if self._empty else None
        block = first.block
        if block is None:
            return None
        changes: list[Change] = []
        used = first.used
        if first.used < block.rows:
            changes, used = block.render(
                first.used,
                place=log.place(),
                first=self._job.initial and not self._progress.rows,
                outdated=first.touches.outdated if first.touches.touched else None,
            )
            if first.touches.spoilt:
                self._spoil(first)
                return None
        rows = used - first.used
        first.used = used
        self._throttle.passed(rows)
        self._advance(first, block, rows)
        return self._chunk(log, changes)

    @property
    def _empty(self) -> bool:
        """Whether there is no table left to read at all."""
        return (
            self._ahead.tables is not None
            and not self._surveying
            and self._ahead.first is None
            and not self._progress.done
            and self._ahead.next_table(self._progress) is None
        )

    def _finish(self, log: Log) -> Chunk:
        self._progress = self._progress.finished()
        self._copying.finished(self._progress)
        self._reader.stop()
        return self._chunk(log, [])

    def _chunk(self, log: Log, changes: list[Change]) -> Chunk:
        chunk = log.insert(changes, self._job.state(self._progress))
        chunk.sink = self._job.sink
        return chunk

    def _advance(self, first: Asked[AnyTable], block: Block, rows: int) -> None:
        table = first.request.table
        if first.used < block.rows:
            after = block.after(first.used - 1)
            self._progress = self._progress.reached(table.id, after, rows)
        else:
            self._ahead.used_up()
            self._spoilt_since, self._told = 0.0, False
            if block.complete:
                self._progress = self._progress.ended(table.id, rows)
            else:
                self._progress = self._progress.reached(table.id, block.behind, rows)
        self._copying.reached(self._progress, table.label)

    def _surveyed(self, survey: Survey[AnyTable]) -> None:
        self._ahead.tables = survey.tables
        self._surveying = False
        # One of these may be in the stream already, from before this process.
        self._suspects = set(survey.running)
        self._emitted.restart(survey.running)
        self._suspects_until = 0.0 if survey.synchronous else time.monotonic() + _VISIBLE_S
        self._copying.estimated(
            sum(t.estimated for t in survey.tables if self._progress.begins(t.id))
        )

    def _arrived(self, answered: Answered[AnyTable]) -> None:
        asked = self._ahead.arrived(answered)
        visible = answered.block.visible
        if asked is not None:
            if self._suspects_until and time.monotonic() > self._suspects_until:
                # Nothing that had been committed by then is invisible for so long: they are just
                # open.
                self._emitted.release(self._suspects)
                asked.touches.release(self._suspects)
                self._suspects.clear()
                self._suspects_until = 0.0
            asked.touches.read(visible)
        self._emitted.forget(visible)

    def _spoil(self, first: Asked[AnyTable]) -> None:
        """Read the same rows once more, fewer at once."""
        now = time.monotonic()
        reason = first.touches.spoilt
        self._ahead.drop()
        if reason != INVISIBLE:
            self._ahead.shrink()
        self._spoilt_since = self._spoilt_since or now
        waited = now - self._spoilt_since
        self._not_before = now + min(_LONGEST_PAUSE_S, max(_PAUSE_S, waited / 4))
        if waited > _PATIENCE_S and not self._told:
            self._told = True
            _log.warning(
                "the snapshot waits: rows that were read are out of date again and again",
                source=self._source,
                table=first.request.table.label,
                reason=reason,
            )
