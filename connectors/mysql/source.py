"""The MySQL and MariaDB sources."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from connectors.contracts.backfills import INITIAL
from connectors.contracts.source import Checkpoint, Observation
from connectors.mysql.replication.reader import CHECKPOINT_INTERVAL_S, MysqlReader
from connectors.mysql.replication.session import start
from connectors.mysql.server import connect
from connectors.mysql.setup import history, preflight
from connectors.mysql.setup.patterns import parse_patterns
from connectors.mysql.setup.settings import resolve
from connectors.mysql.setup.trial import try_out
from connectors.mysql.snapshot.table_reader import MysqlTableReader
from connectors.mysql.snapshot.tables import check_rights
from connectors.mysql.snapshot.visibility import Places
from connectors.snapshot.chunk_reader import ChunkReader
from connectors.snapshot.ended import EndedReader
from connectors.snapshot.job import ended
from connectors.snapshot.progress import STATE, check_repeatable, is_done, read
from connectors.snapshot.runs import Runs
from connectors.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.source import SourceContext
    from connectors.errors import WaxtapError
    from connectors.mysql.setup.settings import Settings
    from connectors.mysql.snapshot.tables import Listed
    from connectors.mysql.spec import MariadbSourceSpec, MysqlSourceSpec
    from connectors.snapshot.job import Job
    from connectors.snapshot.progress import Progress


class MysqlSource:
    """Implements `contracts.Source` for a MySQL (8.0.1 or newer) or MariaDB (10.5) server.

    Args:
        name: The source's name in the configuration.
        spec: Its configuration, which tells the kind of server.
        accept: Losses that the owner has accepted, by the tokens that the errors named.
        context: Tells whether only the past is read once more, and whether DDL is told; else not
            needed: the server remembers.
        checkpoint_interval: How often an idle source moves its checkpoint, in seconds.

    Raises:
        ConfigError: The DSN or a table pattern is malformed.
    """

    def __init__(
        self,
        name: str,
        spec: MysqlSourceSpec | MariadbSourceSpec,
        accept: Collection[str] = (),
        context: SourceContext | None = None,
        *,
        checkpoint_interval: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        told = context is not None and context.ddl
        self._settings = resolve(name, spec, accept, ddl=told)
        self._past = context.past if context is not None else None
        # What is only read once more has nothing new to tell.
        self._backfills = context.backfills if context is not None and not self._past else None
        self._checkpoint_interval = checkpoint_interval

    def open(self, resume: Checkpoint | None) -> MysqlReader | EndedReader:
        """Check the server, and start behind `resume`; without one, at the end of its log.

        An older session of the same source is ended by the server itself.

        Raises:
            ConfigError: One clear error for each thing that must be set up first.
            GapError: The server no longer has what follows `resume`; or rows of a snapshot are
                among what is only to be repeated.
            RetryableError: The server cannot be reached, or did not do its part in time.
        """
        settings = self._settings
        if resume is not None and settings.snapshot == "only" and is_done(resume.state):
            if self._backfills is not None:
                self._backfills.tell(INITIAL, ended(resume.state))
                self._backfills.close()
            return EndedReader()
        if self._past is not None:
            check_repeatable("mysql", resume, self._past)
        if resume is not None and settings.snapshot == "never" and STATE in resume.state:
            # A snapshot that is under way is given up.
            state = {name: value for name, value in resume.state.items() if name != STATE}
            resume = Checkpoint(resume.position, state)
        session = start(settings, resume, first=True)
        try:
            progress = self._progress(session.checkpoint)
            if progress is not None:
                # One clear error instead of one in the middle.
                _check_rights(settings)
        except BaseException:
            session.close()
            raise
        places = Places()
        places.follow(session.server, session.log_end)
        return MysqlReader(
            settings,
            session,
            anchor=resume is None,
            snapshots=self._snapshots(session.checkpoint, places),
            places=places,
            ends=settings.snapshot == "only",
            checkpoint_interval=self._checkpoint_interval,
        )

    def _progress(self, checkpoint: Checkpoint) -> Progress | None:
        """From where a snapshot is to go on; None: there is nothing to read."""
        progress = read(checkpoint.state)
        return None if self._past is not None or progress is None or progress.done else progress

    def _snapshots(self, checkpoint: Checkpoint, places: Places) -> Runs[Listed]:
        settings = self._settings

        def take(job: Job, progress: Progress, rate: int) -> Snapshot[Listed]:
            parse_patterns(job.tables or ("*.*",))
            if not job.initial:
                places.restart(mariadb=settings.mariadb)
            # A row after the other is slow enough for one.
            count = 1 if rate else settings.snapshot_readers
            readers = [MysqlTableReader(settings, places, job) for _ in range(count)]
            reader: ChunkReader[Listed] = ChunkReader("mysql", settings.source, readers)
            return Snapshot(settings.source, reader, progress, job, rate)

        # What is only repeated has no rows of a snapshot.
        state = {} if self._past is not None else checkpoint.state
        only = settings.snapshot == "only"
        return Runs(settings.source, state, take, self._backfills, only=only)

    def check(self) -> list[WaxtapError]:
        """What would keep the source from starting anew; changes nothing on the server.

        The log is read for a moment, as a replica that is another one than the source.

        Returns:
            One clear error for each thing that was found.
        """
        return try_out(self._settings)

    def observe(self, stored: Checkpoint | None) -> Observation:
        """Ask the server where it is; see `contracts.Observable`.

        What a binary log holds behind a GTID set cannot be told in bytes.
        """
        with closing(connect(self._settings.dsn, self._settings.source)) as connection:
            server = preflight.look(connection)
            return Observation(history.executed(connection, server))

    def owned(self) -> list[str]:
        """Nothing, as there is nothing to drop."""
        return []

    def drop(self) -> list[str]:
        """Nothing: a source leaves nothing behind on its server.

        Returns:
            An empty list.
        """
        return []


def _check_rights(settings: Settings) -> None:
    """Raises what `tables.check_rights` does."""
    with closing(connect(settings.dsn, settings.source)) as connection:
        check_rights(connection, settings.patterns)
