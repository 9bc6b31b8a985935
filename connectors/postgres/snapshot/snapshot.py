"""A snapshot that is taken while the log is read: which rows may be given out, and when.

    survey → [ask → block → unit, unit, ...] for each table → done

A block is read in a thread beside the log. Its rows are given out in units of one chunk each, at
boundaries between transactions, once the log has been read past all that the block's snapshot of
the database sees; without the rows for which something newer was given out (`snapshot.touches`).
The next block is read meanwhile: two are in memory at most.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from connectors.postgres.snapshot import copy_text
from connectors.postgres.snapshot.blocks import Block, Request, Survey
from connectors.snapshot.copying import Copying
from connectors.snapshot.progress import STATE, Progress
from connectors.snapshot.touches import INVISIBLE, Emitted, Touches

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk
    from connectors.postgres.pgoutput.decoder import Decoder
    from connectors.postgres.snapshot.chunk_reader import ChunkReader
    from connectors.postgres.snapshot.tables import Published

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Large enough that a log which is read with some delay does not hold the snapshot up.
ROWS = 16_384
_FEWEST = 64
# A commit that waits for no standby is visible well within it.
_VISIBLE_S = 1.0
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_PATIENCE_S = 10.0
# The end of an idle server's log may wait in memory for long; see `ChunkReader.nudge`.
_NUDGE_S = 0.5


@dataclass(slots=True)
class _Asked:
    request: Request
    touches: Touches
    block: Block | None = None
    used: int = 0


class Snapshot:
    """The snapshot of one source.

    Args:
        source: The source's name.
        reader: Reads the tables.
        progress: From where to go on.
    """

    def __init__(self, source: str, reader: ChunkReader, progress: Progress) -> None:
        self._source, self._reader, self._progress = source, reader, progress
        self._rows = self._limit = ROWS
        self._emitted = Emitted()
        self._asked: deque[_Asked] = deque()
        # Answers to what was asked before a block was spoilt, which are still to come.
        self._stale = 0
        self._tables: tuple[Published, ...] | None = None
        self._suspects: set[str] = set()
        self._suspects_until = 0.0
        self._not_before = 0.0
        self._spoilt_since = 0.0
        self._told = False
        self._waits_since = 0.0
        self._surveying = True
        self._copying = Copying(source, progress)
        reader.survey()

    @property
    def done(self) -> bool:
        """Whether everything was given out."""
        return self._progress.done

    @property
    def ready(self) -> bool:
        """Whether there are rows to give out, once the log has got far enough."""
        return bool(self._asked) and self._asked[0].block is not None

    def note(self, changes: list[Change]) -> None:
        """These changes of the log are given out."""
        self._emitted.add(changes)
        if self._suspects:
            self._suspects.difference_update(change.transaction for change in changes)
        for asked in self._asked:
            asked.touches.note(changes)

    def interrupt(self) -> None:
        """The log is read again from the last checkpoint: what was read beside it is dropped."""
        self._drop()

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self._reader.stop()
        self._copying.close()

    def work(self) -> None:
        """Take what was read, and ask for more.

        Raises:
            WaxtapError: A table cannot be read.
        """
        while (answer := self._reader.take()) is not None:
            if isinstance(answer, Survey):
                self._surveyed(answer)
            elif self._stale:
                self._stale -= 1
            else:
                self._arrived(answer)
        if self.ready and (reason := self._asked[0].touches.spoilt):
            self._spoil(reason)
        if self._tables is None or self._surveying or time.monotonic() < self._not_before:
            return
        if self._emitted.overflowed:
            self._drop()
            self._emitted.restart(())
            self._surveying = True
            self._reader.survey()
            return
        self._ask()

    def due(self, lsn: int) -> bool:
        """Whether rows can be given out at the next boundary, where the log is read up to `lsn`."""
        if not self._asked or (block := self._asked[0].block) is None:
            return self._empty
        if lsn >= block.wal_end:
            self._waits_since = 0.0
            return True
        now = time.monotonic()
        self._waits_since = self._waits_since or now
        if now - self._waits_since > _NUDGE_S:
            self._waits_since = now
            self._reader.nudge()
        return False

    def give(self, decoder: Decoder) -> Chunk | None:
        """The next rows, when the decoder is at a boundary; None: they must be read again."""
        if self._empty:
            return self._finish(decoder)
        asked = self._asked[0]
        block = asked.block
        if block is None:
            return None
        changes: list[Change] = []
        used = asked.used
        if block.renderer is not None and asked.used < len(block.lines):
            changes, used = block.renderer.render(
                block.lines,
                asked.used,
                place=decoder.place(),
                read_ms=block.read_ms,
                first=not self._progress.rows,
                last=block.final,
                leading=block.leading,
                outdated=asked.touches.outdated if asked.touches.touched else None,
            )
            if asked.touches.spoilt:
                self._spoil(asked.touches.spoilt)
                return None
        rows = used - asked.used
        asked.used = used
        self._advance(block, used, rows)
        return decoder.insert(changes, {STATE: self._progress.encoded})

    @property
    def _empty(self) -> bool:
        """Whether there is no table left to read at all."""
        return (
            self._tables is not None
            and not self._surveying
            and not self._asked
            and not self._progress.done
            and self._next_table(self._progress) is None
        )

    def _finish(self, decoder: Decoder) -> Chunk:
        self._progress = self._progress.finished()
        self._copying.finished(self._progress)
        self._reader.stop()
        return decoder.insert([], {STATE: self._progress.encoded})

    def _advance(self, block: Block, used: int, rows: int) -> None:
        table = block.request.table
        if used < len(block.lines):
            after = self._after(block, used - 1)
            self._progress = self._progress.reached(table.id, after, rows)
        else:
            self._asked.popleft()
            self._limit = min(self._rows, self._limit * 2)
            self._spoilt_since, self._told = 0.0, False
            if block.complete:
                self._progress = self._progress.ended(table.id, rows)
            else:
                self._progress = self._progress.reached(table.id, self._behind(block), rows)
        self._copying.reached(self._progress, table.label)

    def _after(self, block: Block, line: int) -> tuple[str, ...]:
        from_line = copy_text.at(block.lines[line], block.key)
        return (block.filenode, *from_line) if block.filenode else from_line

    def _behind(self, block: Block) -> tuple[str, ...]:
        """Behind what the next block of the same table begins."""
        if block.end:
            return block.end
        return self._after(block, len(block.lines) - 1) if block.lines else block.request.after

    def _surveyed(self, survey: Survey) -> None:
        self._tables = survey.tables
        self._surveying = False
        # One of these may be in the stream already, from before this process.
        self._suspects = set(survey.running)
        self._emitted.restart(survey.running)
        self._suspects_until = 0.0 if survey.synchronous else time.monotonic() + _VISIBLE_S
        self._copying.estimated(
            sum(t.estimated for t in survey.tables if self._progress.begins(t.id))
        )

    def _arrived(self, block: Block) -> None:
        asked = next(each for each in self._asked if each.block is None)
        if self._suspects_until and time.monotonic() > self._suspects_until:
            # Nothing that had been committed by then is invisible for so long: they are just open.
            self._emitted.release(self._suspects)
            asked.touches.release(self._suspects)
            self._suspects.clear()
            self._suspects_until = 0.0
        asked.touches.read(block.visible)
        self._emitted.forget(block.visible)
        asked.block = block
        if block.lines and not block.complete and len(block.lines) < asked.request.limit:
            # Wide rows: the next chunk need not be cut.
            self._limit = max(1, len(block.lines))

    def _ask(self) -> None:
        """Keep one block ahead of the one whose rows are given out."""
        if len(self._asked) > 1 or self._tables is None:
            return
        progress = self._progress
        if self._asked:
            block = self._asked[0].block
            if block is None or self._asked[0].touches.spoilt:
                return
            table = block.request.table
            if block.complete:
                progress = progress.ended(table.id, 0)
            else:
                progress = progress.reached(table.id, self._behind(block), 0)
        table_ = self._next_table(progress)
        if table_ is None:
            return
        after = progress.after if progress.table == table_.id else ()
        following = tuple(t for t in self._tables if t.id > table_.id)
        request = Request(table_, after, self._limit, following)
        touches = Touches(table_.schema, table_.name, self._emitted.snapshot())
        self._asked.append(_Asked(request, touches))
        self._reader.ask(request)

    def _next_table(self, progress: Progress) -> Published | None:
        return next((t for t in self._tables or () if progress.begins(t.id)), None)

    def _spoil(self, reason: str) -> None:
        """Read the same rows once more, fewer at once."""
        now = time.monotonic()
        label = self._asked[0].request.table.label
        self._drop()
        if reason != INVISIBLE:
            self._limit = max(_FEWEST, self._limit // 4)
        self._spoilt_since = self._spoilt_since or now
        waited = now - self._spoilt_since
        self._not_before = now + min(_LONGEST_PAUSE_S, max(_PAUSE_S, waited / 4))
        if waited > _PATIENCE_S and not self._told:
            self._told = True
            _log.warning(
                "the snapshot waits: rows that were read are out of date again and again",
                source=self._source,
                table=label,
                reason=reason,
            )

    def _drop(self) -> None:
        self._stale += sum(asked.block is None for asked in self._asked)
        self._asked.clear()
