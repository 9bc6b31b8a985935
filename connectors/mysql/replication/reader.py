"""Reads a source's log in chunks, and mends the connection when it breaks."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from connectors.contracts.source import Chunk
from connectors.errors import RetryableError
from connectors.mysql.replication.session import start
from connectors.resilient_session import ResilientSession
from connectors.snapshot.turns import Turns

if TYPE_CHECKING:
    from connectors.contracts.source import Checkpoint
    from connectors.mysql.replication.session import Session
    from connectors.mysql.setup.settings import Settings
    from connectors.mysql.snapshot.tables import Listed
    from connectors.mysql.snapshot.visibility import Places
    from connectors.snapshot.runs import Runs

CHECKPOINT_INTERVAL_S = 5.0

_WAIT_S = 0.002


class MysqlReader:
    """Implements `contracts.SourceReader`, and `Finite`.

    Attributes:
        ended: As `Finite.ended`.

    Args:
        settings: The source's.
        session: Where to read from at first.
        anchor: True to hand out the session's checkpoint itself first, so that the stream knows
            where the source began even if nothing ever changes.
        snapshots: Read the tables meanwhile.
        places: Takes note of where transactions begin that are given out meanwhile; follows the
            first session already.
        ends: Whether everything ends with the snapshot.
        checkpoint_interval: How often an idle source moves its checkpoint, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        session: Session,
        *,
        anchor: bool,
        snapshots: Runs[Listed],
        places: Places | None = None,
        ends: bool = False,
        checkpoint_interval: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        self._settings = settings
        self._session = ResilientSession(
            session, "mysql", settings.type, settings.source, hesitant=True
        )
        self._last = session.checkpoint
        self._anchor = anchor
        self._snapshots = snapshots
        reading = None if snapshots.done else snapshots
        self._turns = Turns(reading)
        self._places = places if reading is not None else None
        if self._places is not None:
            self._places.proceed(0, session.checkpoint)
        self._followed = session
        self._ends, self.ended = ends, False
        self._interval = checkpoint_interval
        self._handed_at = time.monotonic()

    def read(self) -> Chunk | None:
        """Return the next chunk, or None when there is nothing now.

        A chunk comes as soon as the socket is empty or the chunk is full; an empty one at most
        every `checkpoint_interval` when only transactions without captured changes have come.

        Raises:
            FatalError: The source cannot go on; nothing was lost.
        """
        if self._anchor:
            self._anchor = False
            return self._repeat()
        if self._ends and self._turns.final is not None:
            # Whoever reads waits until that is stored.
            time.sleep(_WAIT_S)
            return None
        session = self._session.present
        if session is None:
            return self._repeat() if self._session.mend() else None
        try:
            return self._next(session)
        except RetryableError as error:
            self._turns.interrupt()
            again = partial(start, self._settings, self._last, first=False)
            self._session.lose(error, again)
            # A newer session of the same source ends an older one: this flow may be fenced.
            return self._repeat()

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Take note of the end; a server keeps its log by its own rules, whoever reads it."""
        self._snapshots.confirmed(checkpoint)
        if self._ends and checkpoint == self._turns.final:
            self.ended = True

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        self._turns.close()
        self._snapshots.close()
        self._session.close()

    def _next(self, session: Session) -> Chunk | None:
        places = self._places
        if places is not None:
            if session is not self._followed:
                places.follow(session.server, session.log_end)
            places.proceed(session.decoder.reached, self._last)
        self._followed = session
        chunk = self._turns.next(session.decoder, partial(self._changes, session))
        if chunk is None:
            return None
        self._last = chunk.checkpoint
        self._handed_at = time.monotonic()
        return chunk

    def _changes(self, session: Session) -> Chunk | None:
        """The next chunk of the log."""
        decoder = session.decoder
        chunk = decoder.chunk(idle=False)
        if chunk is None:
            idle = self._fill(session)
            chunk = decoder.chunk(idle=idle)
            if chunk is None and idle and time.monotonic() - self._handed_at >= self._interval:
                chunk = decoder.advance()
            waits = chunk is None and idle and not self._turns.reading
            if waits and session.stream.wait(_WAIT_S):
                chunk = decoder.chunk(idle=self._fill(session))
        if chunk is not None and self._places is not None and self._snapshots.under_way:
            self._places.note(chunk.changes)
        return chunk

    def _fill(self, session: Session) -> bool:
        """Decode what has arrived, up to a full chunk; True when the socket is empty."""
        decoder = session.decoder
        while not decoder.full:
            received = session.stream.drain()
            if received.events:
                decoder.feed(received.events)
                self._session.flows()
            if not received.more:
                return not decoder.full
        return False

    def _repeat(self) -> Chunk:
        return Chunk(self._settings.source, [], self._last, self._last.state)
