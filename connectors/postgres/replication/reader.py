"""Reads a source's stream in chunks, and mends the connection when it breaks."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from connectors.contracts.source import Chunk
from connectors.errors import GapError, RetryableError
from connectors.postgres.pgoutput.lsn import stored_lsn
from connectors.postgres.replication.session import restart
from connectors.postgres.replication.stream_errors import PUBLICATION_GONE
from connectors.postgres.setup.gaps import publication_gone
from connectors.resilient_session import ResilientSession
from connectors.snapshot.turns import Pacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.contracts.source import Checkpoint
    from connectors.errors import FatalError
    from connectors.postgres.pgoutput.streaming import Keepalive
    from connectors.postgres.replication.session import Session
    from connectors.postgres.replication.table_filter import TableFilter
    from connectors.postgres.reselect.reselect import Reselect
    from connectors.postgres.setup.settings import Settings
    from connectors.postgres.snapshot.tables import Published
    from connectors.snapshot.runs import Runs

CHECKPOINT_INTERVAL_S = 5.0

_DRAIN = 1000
# A drain ends at each keepalive, and a server that waits for confirmations sends one behind every
# transaction.
_DRAINS = 1024
_MESSAGES = 64_000
_WAIT_S = 0.002
# A server that shuts down asks for a status at every answer, until everything it has sent is
# confirmed. A flow that cannot store anything just then must not hold the shutdown up for ever.
_SHUTDOWN_PATIENCE_S = 5.0
_PING_GAP_S = 1.0
# How long what was given out may take to be stored, before a gap is told of.
_STORING_S = 10.0


class Beside(Protocol):
    """Something that runs in a thread of its own."""

    @property
    def problem(self) -> FatalError | None:
        """Why the reading must end; None: it need not."""
        ...

    def stop(self) -> None:
        """End; waits for a moment at most. Never raises."""
        ...


class PostgresReader:
    """Implements `contracts.SourceReader`, and `Finite`.

    Attributes:
        ended: As `Finite.ended`.

    Args:
        settings: The source's.
        session: Where to read from at first.
        checkpoint: Behind which that session started.
        first: Handed out before everything else; the last of them ends at `checkpoint`.
        anchor: True to hand out `checkpoint` itself first, so that the stream knows where the
            source began even if nothing ever changes.
        table_filter: Takes out what was not asked for.
        beside: What goes on beside the reading, and ends with it.
        reselect: Fills in what the log left out; None: that stays marked.
        snapshots: Read the tables meanwhile.
        finish: Lets go of what the server has for the source, once the snapshot is stored, with
            which everything ends; None: the log is read on.
        checkpoint_interval: How often an idle source moves its checkpoint, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        session: Session,
        checkpoint: Checkpoint,
        *,
        first: Sequence[Chunk] = (),
        anchor: bool,
        table_filter: TableFilter,
        beside: Sequence[Beside] = (),
        reselect: Reselect | None = None,
        snapshots: Runs[Published],
        finish: Callable[[], None] | None = None,
        checkpoint_interval: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        self._settings = settings
        self._session = ResilientSession(session, "postgres", "postgres", settings.source)
        self._last = checkpoint
        self._confirmed = stored_lsn(checkpoint)
        self._first = deque(first)
        self._anchor = anchor
        self._filter = table_filter
        self._beside = beside
        self._reselect = reselect
        self._snapshots = snapshots
        self._pacing = Pacing()
        self._gone: FatalError | None = None
        self._gone_at = 0.0
        self._finish = finish
        self._final: Checkpoint | None = None
        self._stored = self.ended = False
        self._interval = checkpoint_interval
        self._handed_at = time.monotonic()
        self._advance_wanted = False
        self._pinged_since = self._pinged_at = 0.0

    def read(self) -> Chunk | None:
        """Return the next chunk, or None when there is nothing now.

        A chunk comes as soon as the socket is empty or the chunk is full; an empty one at most
        every `checkpoint_interval` when only the confirmable position has moved.

        Raises:
            FatalError: The source cannot go on; nothing was lost.
        """
        if self._first:
            return self._first.popleft()
        if self._anchor:
            self._anchor = False
            return self._repeat()
        if self._final is not None:
            self._end()
            return None
        session = self._session.present
        if session is None:
            return self._mend()
        self._gone = self._gone or next(filter(None, (each.problem for each in self._beside)), None)
        try:
            return self._next(session) if self._gone is None else self._run_out(session)
        except GapError as error:
            if error.code != PUBLICATION_GONE or self._gone is not None:
                raise
            self._gone = error
            return None
        except RetryableError as error:
            previous = session.stream.pid
            if self._reselect is not None:
                self._reselect.drop()
            self._snapshots.interrupt()
            again = partial(restart, self._settings, self._last, self._confirmed, previous)
            self._session.lose(error, again)
            return None

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Tell the server that everything up to `checkpoint` is stored for good."""
        self._confirmed = max(self._confirmed, stored_lsn(checkpoint))
        self._stored = checkpoint == self._final
        self._snapshots.confirmed(checkpoint)
        if (session := self._session.present) is not None:
            session.stream.confirm(self._confirmed)

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        for each in self._beside:
            each.stop()
        if self._reselect is not None:
            self._reselect.close()
        self._snapshots.close()
        self._session.close()

    def _end(self) -> None:
        """Once the last row is stored, the source has nothing more to tell."""
        if not self._stored or self.ended or self._finish is None:
            return
        self._session.close()
        try:
            self._finish()
        except RetryableError:
            # Whoever opens the source again tries again as well.
            time.sleep(_WAIT_S)
        else:
            self.ended = True

    def _run_out(self, session: Session) -> Chunk | None:
        """Give out what was read before the publication was dropped, then tell of the gap.

        The gap is named by what is stored when the source starts again, so that comes first.

        Raises:
            GapError: `postgres.publication_gone`.
        """
        self._gone_at = self._gone_at or time.monotonic()
        if self._reselect is not None and self._reselect.pending:
            chunk = self._noted(self._reselect.take())
        else:
            chunk = self._filtered(session.decoder.chunk(idle=True))
        if chunk is not None:
            self._last = chunk.checkpoint
            return chunk
        reached = stored_lsn(self._last)
        if self._confirmed < reached and time.monotonic() - self._gone_at < _STORING_S:
            time.sleep(_WAIT_S)
            return None
        message = self._gone.message if self._gone is not None else ""
        raise publication_gone(message, self._settings.publication, self._settings, reached)

    def _next(self, session: Session) -> Chunk | None:
        session.stream.answer()
        chunk = self._rows(session) if self._pacing.rows_first else None
        if chunk is None:
            chunk = self._changes(session)
            self._pacing.looked(chunk)
        if chunk is None:
            chunk = self._rows(session)
        if chunk is None:
            return None
        self._last = chunk.checkpoint
        self._handed_at = time.monotonic()
        return chunk

    def _changes(self, session: Session) -> Chunk | None:
        """The next chunk of the log."""
        if self._reselect is not None and self._reselect.pending:
            return self._noted(self._reselect.take())
        chunk = session.decoder.chunk(idle=False)
        if chunk is None:
            idle = self._fill(session)
            chunk = session.decoder.chunk(idle=idle)
            if chunk is None and idle:
                chunk = self._advance(session)
            if chunk is None and idle and not self._reading and session.stream.wait(_WAIT_S):
                idle = self._fill(session)
                chunk = session.decoder.chunk(idle=idle)
        return self._filtered(chunk)

    @property
    def _reading(self) -> bool:
        """Whether rows of a table wait to be given out."""
        return self._snapshots.ready

    def _filtered(self, chunk: Chunk | None) -> Chunk | None:
        if chunk is not None:
            self._filter.apply(chunk)
            if self._reselect is not None:
                self._reselect.put(chunk)
                chunk = self._reselect.take()
        return self._noted(chunk)

    def _noted(self, chunk: Chunk | None) -> Chunk | None:
        if chunk is not None:
            self._snapshots.note(chunk.changes)
        return chunk

    def _rows(self, session: Session) -> Chunk | None:
        """The next rows of a table; or, where the log must come first, its next chunk."""
        snapshots, decoder = self._snapshots, session.decoder
        snapshots.work()
        if self._reselect is not None and self._reselect.pending:
            # What is still to come of the log stands before these rows.
            return None
        if not snapshots.due(decoder.lsn):
            return None
        if not decoder.boundary:
            return self._filtered(decoder.chunk(idle=True))
        chunk = snapshots.give(decoder)
        self._pacing.gave()
        if snapshots.done and self._finish is not None and chunk is not None:
            self._final = chunk.checkpoint
        return chunk

    def _fill(self, session: Session) -> bool:
        """Decode what has arrived, up to a full chunk; True when the socket is empty."""
        stream, decoder = session.stream, session.decoder
        taken = 0
        for _ in range(_DRAINS):
            received = stream.drain(_DRAIN)
            if received.messages:
                decoder.feed(received.messages)
                taken += len(received.messages)
            if received.keepalive is not None:
                decoder.keepalive(received.keepalive.wal_end)
                self._note(received.keepalive)
            if received.messages or received.keepalive:
                self._session.flows()
            if decoder.full or taken >= _MESSAGES or not received.more:
                return not received.more
        return False

    def _advance(self, session: Session) -> Chunk | None:
        waited = time.monotonic() - self._handed_at
        if waited < (min(_PING_GAP_S, self._interval) if self._advance_wanted else self._interval):
            return None
        self._advance_wanted = False
        return session.decoder.advance()

    def _note(self, keepalive: Keepalive) -> None:
        """See whether the server wants something of us.

        Raises:
            RetryableError: `postgres.shutting_down`.
        """
        if not keepalive.reply:
            return
        # It may be waiting for the confirmation of what it has sent.
        self._advance_wanted = True
        now = time.monotonic()
        if now - self._pinged_at > _PING_GAP_S:
            self._pinged_since = now
        self._pinged_at = now
        if now - self._pinged_since > _SHUTDOWN_PATIENCE_S:
            raise RetryableError(
                "postgres.shutting_down", "the server shuts down and waits for confirmations"
            )

    def _mend(self) -> Chunk | None:
        """Take the new session when there is one; repeat the checkpoint at every failed attempt."""
        if self._session.mend():
            return self._repeat()
        if (session := self._session.present) is not None:
            self._pinged_at = 0.0
            session.stream.confirm(self._confirmed)
        return None

    def _repeat(self) -> Chunk:
        return Chunk(self._settings.source, [], self._last, self._last.state)
