"""Which tables are read beside the log now: the first snapshot, then the backfills in their order.

    first snapshot → [backfill → what became of it is stored] for each

A reader of a log uses it as one `Snapshot` that goes on for ever. One backfill is under way at a
time: its place in the checkpoint's state is taken over by the next one only when it is known for
good how it ended. One that has begun and is paused holds up those behind it; one that has not
begun lets them pass.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, Protocol

import structlog
from msgspec.structs import replace

from connectors.contracts.backfills import INITIAL, BackfillStatus, Stage, Wish
from connectors.errors import WaxtapError
from connectors.snapshot.job import Job, beside, read_backfill
from connectors.snapshot.progress import BACKFILL, STATE, Progress, read
from connectors.snapshot.reading import AnyTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.contracts.backfills import BackfillRequest, Backfills
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Chunk
    from connectors.snapshot.reading import Log
    from connectors.snapshot.snapshot import Snapshot

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Between two looks at what is asked for, and between two words on how far one is, in seconds.
_LOOK_EVERY_S = 0.2
_TELL_EVERY_S = 1.0


class Taking(Protocol[AnyTable]):
    """Begins to read tables, or goes on with it."""

    def __call__(self, job: Job, progress: Progress, rate: int) -> Snapshot[AnyTable]:
        """Read for a job, from `progress` on, at most `rate` rows a second (0: any number).

        Raises:
            ConfigError: A table pattern is malformed.
        """
        ...


class Runs(Generic[AnyTable]):
    """What is read beside the log of one source.

    Args:
        source: The source's name.
        state: The state of the checkpoint behind which the log is read.
        take: Makes a snapshot.
        backfills: Hears what is asked for; None: nobody can ask.
        only: The first snapshot is all there is, whatever is asked for.
    """

    def __init__(
        self,
        source: str,
        state: Mapping[str, str],
        take: Taking[AnyTable],
        backfills: Backfills | None,
        *,
        only: bool = False,
    ) -> None:
        self._source, self._take, self._backfills, self._only = source, take, backfills, only
        # What the checkpoint tells of snapshots, once everything that was given out is stored.
        self._state = beside(state, "")
        self._current: Snapshot[AnyTable] | None = None
        self._job = Job()
        self._started = 0
        self._looked = self._spoke = 0.0
        # How the current one has ended; told when its end is stored in the checkpoint.
        self._ending: BackfillStatus | None = None
        # Those of which it is not stored yet how they have ended.
        self._over: set[str] = set()
        progress = read(state)
        if progress is not None and not progress.done:
            self._begin(Job(beside=beside(state, STATE)), progress, 0)

    @property
    def done(self) -> bool:
        """Whether nothing will ever be read."""
        return self._current is None and (self._only or self._backfills is None)

    @property
    def under_way(self) -> bool:
        """Whether tables are being read."""
        return self._current is not None

    @property
    def ready(self) -> bool:
        """Whether there are rows to give out, once the log has got far enough."""
        return self._current is not None and self._current.ready

    def note(self, changes: list[Change]) -> None:
        """These changes of the log are given out."""
        if self._current is not None:
            self._current.note(changes)

    def interrupt(self) -> None:
        """The log is read again from the last checkpoint: what was read beside it is dropped."""
        if self._current is not None:
            self._current.interrupt()

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        if self._current is not None:
            # Another process goes on with it.
            self._tell(self._job.id, self._status(Stage.QUEUED))
        self._stop()
        if self._backfills is not None:
            self._backfills.close()

    def work(self) -> None:
        """Take what was read, and ask for more; begin and end what is asked for.

        Raises:
            WaxtapError: A table of the first snapshot cannot be read.
        """
        now = time.monotonic()
        if self._backfills is not None and now - self._looked > _LOOK_EVERY_S:
            self._looked = now
            self._look(self._backfills)
        if self._current is None:
            return
        try:
            self._current.work()
        except WaxtapError as error:
            self._failed(error)

    def due(self, reached: int) -> bool:
        """As `Snapshot.due`."""
        return self._current is not None and self._current.due(reached)

    def give(self, log: Log) -> Chunk | None:
        """As `Snapshot.give`.

        Raises:
            WaxtapError: A row of the first snapshot cannot be read.
        """
        current = self._current
        if current is None:
            return None
        try:
            chunk = current.give(log)
        except WaxtapError as error:
            self._failed(error)
            return None
        self._state = self._job.state(current.progress)
        if current.done:
            self._ending = self._status(Stage.DONE)
            self._stop()
        return chunk

    def confirmed(self, checkpoint: Checkpoint) -> None:
        """Everything up to a checkpoint is stored."""
        key = STATE if self._job.initial else BACKFILL
        if self._ending is not None and checkpoint.state.get(key) == self._state.get(key):
            ending, self._ending = self._ending, None
            self._end(self._job.id, ending)

    def _look(self, backfills: Backfills) -> None:
        """Do what is asked for."""
        asked = backfills.open()
        self._over.intersection_update(request.id for request in asked)
        if self._current is not None and not self._job.initial:
            self._obey(next((each for each in asked if each.id == self._job.id), None))
        for request in asked:
            if request.wish is Wish.CANCEL and not self._is_current(request.id):
                self._cancel(backfills, request.id)
        if self._current is None and self._ending is None and not self._over and not self._only:
            self._tell_initial(backfills)
            self._next(backfills, asked)
        if self._current is not None and time.monotonic() - self._spoke > _TELL_EVERY_S:
            self._spoke = time.monotonic()
            backfills.tell(self._job.id, self._status(Stage.RUNNING))

    def _is_current(self, backfill: str) -> bool:
        return backfill == self._job.id and (self._current or self._ending) is not None

    def _obey(self, request: BackfillRequest | None) -> None:
        """See what is to become of the one that runs; None: it is forgotten."""
        current = self._current
        if current is None:
            return
        if request is None:
            self._stop()
        elif request.wish is Wish.CANCEL:
            status = self._status(Stage.CANCELLED)
            self._stop()
            self._end(request.id, status)
        elif request.wish is Wish.PAUSE:
            status = self._status(Stage.PAUSED)
            self._stop()
            self._tell(request.id, status)
        else:
            current.throttle(request.rate)

    def _cancel(self, backfills: Backfills, backfill: str) -> None:
        """Note the end of one that does not run."""
        if backfill in self._over:
            return
        known = backfills.known(backfill) or BackfillStatus(Stage.QUEUED)
        self._end(backfill, replace(known, stage=Stage.CANCELLED, ended=time.time_ns()))

    def _tell_initial(self, backfills: Backfills) -> None:
        """Where the first snapshot was done right before an earlier process could tell."""
        progress, known = read(self._state), backfills.known(INITIAL)
        if progress is None or not progress.done or known is None or known.stage.final:
            return
        self._end(INITIAL, replace(known, stage=Stage.DONE, rows=progress.rows, seconds_left=None))

    def _next(self, backfills: Backfills, asked: Sequence[BackfillRequest]) -> None:
        """Begin the first of those that may run."""
        last, progress = read_backfill(self._state)
        for request in asked:
            known = backfills.known(request.id)
            begun = request.id == last
            if request.wish is Wish.CANCEL:
                continue
            if begun and progress.done:
                # An earlier process could not tell.
                status = known or BackfillStatus(Stage.DONE)
                ended = time.time_ns()
                done = replace(status, stage=Stage.DONE, rows=progress.rows, ended=ended)
                self._end(request.id, replace(done, seconds_left=None))
                return
            if request.wish is Wish.PAUSE:
                if known is None or known.stage is not Stage.PAUSED:
                    status = known or BackfillStatus(Stage.PAUSED)
                    self._tell(request.id, replace(status, stage=Stage.PAUSED))
                if begun:
                    return
                continue
            job = Job(
                request.id,
                request.tables,
                request.where,
                request.sink,
                beside(self._state, BACKFILL),
            )
            self._begin(job, progress if begun else Progress(), request.rate)
            return

    def _begin(self, job: Job, progress: Progress, rate: int) -> None:
        self._job = job
        known = self._backfills.known(job.id) if self._backfills is not None else None
        self._started = (known and known.started) or time.time_ns()
        try:
            self._current = self._take(job, progress, rate)
        except WaxtapError as error:
            self._failed(error)

    def _failed(self, error: WaxtapError) -> None:
        """A backfill has failed, and nothing else with it. The first snapshot is the source's."""
        if self._job.initial:
            raise error
        status = replace(self._status(Stage.FAILED), error=str(error))
        self._stop()
        self._end(self._job.id, status)
        _log.warning(
            "a backfill has failed",
            source=self._source,
            backfill=self._job.id,
            code=error.code,
            error=str(error),
        )

    def _status(self, stage: Stage) -> BackfillStatus:
        """How far the current one is."""
        ended = time.time_ns() if stage.final else 0
        if self._current is None:
            return BackfillStatus(stage, started=self._started, ended=ended)
        rows, estimated, table, rate, left = self._current.copied
        running = stage is Stage.RUNNING
        return BackfillStatus(
            stage,
            rows=rows,
            estimated=estimated,
            table=table,
            rate=rate,
            seconds_left=left if running else None,
            started=self._started,
            ended=ended,
        )

    def _stop(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _end(self, backfill: str, status: BackfillStatus) -> None:
        if backfill != INITIAL:
            self._over.add(backfill)
        self._tell(backfill, status)

    def _tell(self, backfill: str, status: BackfillStatus) -> None:
        if self._backfills is not None:
            self._backfills.tell(backfill, status)
