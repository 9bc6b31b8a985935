"""The PostgreSQL source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from connectors.contracts.backfills import INITIAL
from connectors.postgres.conninfo import ordinary
from connectors.postgres.health import failover, slot_guard
from connectors.postgres.health.heartbeat import Heartbeat
from connectors.postgres.pgoutput.lsn import stored_lsn
from connectors.postgres.replication.reader import (
    CHECKPOINT_INTERVAL_S,
    PostgresReader,
)
from connectors.postgres.replication.session import start
from connectors.postgres.replication.table_filter import TableFilter
from connectors.postgres.reselect.lookup import RowLookup
from connectors.postgres.reselect.reselect import Reselect
from connectors.postgres.server import connect
from connectors.postgres.setup import observation, preflight, slot
from connectors.postgres.setup import prepare as setup
from connectors.postgres.setup.patterns import parse_patterns
from connectors.postgres.setup.primary import check_feedback, primary, wait_replayed
from connectors.postgres.setup.publication_watch import PublicationWatch
from connectors.postgres.setup.settings import resolve
from connectors.postgres.setup.trial import try_out
from connectors.postgres.snapshot import emptying
from connectors.postgres.snapshot.table_reader import PostgresTableReader
from connectors.postgres.snapshot.tables import Published, published
from connectors.snapshot.chunk_reader import ChunkReader
from connectors.snapshot.ended import EndedReader
from connectors.snapshot.job import ended
from connectors.snapshot.progress import check_repeatable, is_done, read
from connectors.snapshot.runs import Runs
from connectors.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.source import (
        Checkpoint,
        Chunk,
        LogHealth,
        Observation,
        SourceContext,
    )
    from connectors.errors import WaxtapError
    from connectors.postgres.replication.reader import Beside
    from connectors.postgres.spec import SourceSpec
    from connectors.snapshot.job import Job
    from connectors.snapshot.progress import Progress

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class PostgresSource:
    """Implements `contracts.Source` for a PostgreSQL database (13 or newer).

    Args:
        name: The source's name in the configuration.
        spec: Its configuration.
        accept: Losses that the owner has accepted, by the tokens that the errors named.
        context: Tells whether only the past is read once more; else not needed: the server
            remembers.
        checkpoint_interval: How often an idle source moves its checkpoint, in seconds.

    Raises:
        ConfigError: The DSN, a table pattern or the slot's name is malformed.
    """

    def __init__(
        self,
        name: str,
        spec: SourceSpec,
        accept: Collection[str] = (),
        context: SourceContext | None = None,
        *,
        checkpoint_interval: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        self._settings = resolve(name, spec, accept)
        ordinary(self._settings.dsn, name)
        self._past = context.past if context is not None else None
        # What is only read once more has nothing new to tell.
        self._backfills = context.backfills if context is not None and not self._past else None
        self._checkpoint_interval = checkpoint_interval

    def open(self, resume: Checkpoint | None) -> PostgresReader | EndedReader:
        """Check the server, prepare publication and slot, and start behind `resume`.

        An older session of the same source (same role, same application name) that still holds the
        slot is ended.

        Raises:
            ConfigError: One clear error for each thing that must be set up first.
            GapError: The server no longer has what follows `resume`; or rows of a snapshot are
                among what is only to be repeated.
            RetryableError: The server cannot be reached, or did not do its part in time.
        """
        settings = self._settings
        if resume is not None:
            stored_lsn(resume)
            if settings.snapshot == "only" and is_done(resume.state):
                # Also for one that was killed right before.
                self._finish()
                if self._backfills is not None:
                    self._backfills.tell(INITIAL, ended(resume.state))
                    self._backfills.close()
                return EndedReader()
        if self._past is not None:
            check_repeatable("postgres", resume, self._past)
        connection = connect(settings.dsn, settings.source)
        try:
            preflight.check_server(connection, settings, resumes=resume is not None)
            system = preflight.system_identifier(connection)
            check_feedback(connection, settings)
            with primary(connection, settings) as writable:
                growing = setup.prepare_publication(writable, settings, resume)
                wait_replayed(writable, connection)
            checkpoint, refill = setup.prepare_slot(connection, settings, system, resume)
            emptied: list[Chunk] = []
            if refill is not None:
                emptied = emptying.emptied(connection, settings, checkpoint, refill)
                checkpoint = emptied[-1].checkpoint if emptied else checkpoint
            progress = self._progress(checkpoint)
            # One clear error instead of one in the middle.
            if progress is not None:
                published(connection, settings.publication, settings.wants)
            elif settings.reselects:
                published(connection, settings.publication, settings.wants, "toast: mark")
            slot.take_over(connection, settings.slot, settings.application)
            failover.ensure(connection, settings, slot.find(connection, settings.slot))
            session = start(settings, connection, checkpoint, stored_lsn(checkpoint))
        except BaseException:
            connection.close()
            raise
        return PostgresReader(
            settings,
            session,
            checkpoint,
            first=emptied,
            anchor=checkpoint is not resume,
            table_filter=TableFilter(() if settings.all_published else settings.patterns),
            beside=self._beside(growing=growing),
            reselect=Reselect(RowLookup(settings)) if settings.reselects else None,
            snapshots=self._snapshots(checkpoint),
            finish=self._finish if settings.snapshot == "only" else None,
            checkpoint_interval=self._checkpoint_interval,
        )

    def _beside(self, *, growing: bool) -> list[Beside]:
        """What goes on while the log is read."""
        settings = self._settings
        beside: list[Beside] = [PublicationWatch(settings, growing=growing)]
        if settings.heartbeat_s:
            beside.append(Heartbeat(settings, settings.heartbeat_s))
        return beside

    def _progress(self, checkpoint: Checkpoint) -> Progress | None:
        """From where a snapshot is to go on; None: there is nothing to read."""
        progress = read(checkpoint.state)
        return None if self._past is not None or progress is None or progress.done else progress

    def _finish(self) -> None:
        """Let the server forget a source that has told everything."""
        for dropped in self.drop():
            _log.info(
                "dropped, the snapshot is complete", source=self._settings.source, what=dropped
            )

    def _snapshots(self, checkpoint: Checkpoint) -> Runs[Published]:
        settings = self._settings
        # What is only repeated has no rows of a snapshot.
        state = {} if self._past is not None else checkpoint.state
        only = settings.snapshot == "only"
        return Runs(settings.source, state, self._take, self._backfills, only=only)

    def _take(self, job: Job, progress: Progress, rate: int) -> Snapshot[Published]:
        """As `snapshot.runs.Taking`."""
        settings = self._settings
        wanted = settings.wants
        if not job.initial:
            patterns = parse_patterns(job.tables)

            def wanted(schema: str, name: str) -> bool:
                chosen = any(each.matches(schema, name) for each in patterns)
                return chosen and settings.wants(schema, name)

        # A row after the other is slow enough for one.
        count = 1 if rate else settings.snapshot_readers
        readers = [PostgresTableReader(settings, wanted, job) for _ in range(count)]
        reader: ChunkReader[Published] = ChunkReader("postgres", settings.source, readers)
        return Snapshot(settings.source, reader, progress, job, rate)

    def check(self) -> list[WaxtapError]:
        """What would keep the source from starting anew; changes nothing on the server.

        The publication is tried in a transaction that is rolled back.

        Returns:
            One clear error for each thing that was found.
        """
        return try_out(self._settings)

    def observe(self, stored: Checkpoint | None) -> Observation:
        """Ask the server where it is; see `contracts.Observable`."""
        reached = stored_lsn(stored) if stored is not None else None
        with connect(self._settings.dsn, self._settings.source) as connection:
            return observation.observe(connection, self._settings.slot, reached)

    def guard(self) -> LogHealth | None:
        """Look after the slot; see `contracts.Guarded`."""
        with connect(self._settings.dsn, self._settings.source) as connection:
            return slot_guard.guard(connection, self._settings)

    def owned(self) -> list[str]:
        """Slot and publication, unless they were made by somebody else."""
        settings = self._settings
        if not settings.create:
            return []
        return [f"slot {settings.slot}", f"publication {settings.publication}"]

    def drop(self) -> list[str]:
        """Drop the slot and the publication, if this source created them.

        Returns:
            What was dropped, such as `slot waxtap_shop`.

        Raises:
            ConfigError: Somebody else uses the slot.
            RetryableError: The server cannot be reached, or the slot was not released.
        """
        with connect(self._settings.dsn, self._settings.source) as connection:
            return setup.drop(connection, self._settings)
