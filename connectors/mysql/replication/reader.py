"""Reads a source's log in chunks, and mends the connection when it breaks."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from connectors.contracts import Chunk
from connectors.errors import RetryableError
from connectors.mysql.replication.session import Session, start
from connectors.reconnection import Reconnection

if TYPE_CHECKING:
    from connectors.contracts import Checkpoint
    from connectors.mysql.setup.settings import Settings

CHECKPOINT_INTERVAL_S = 5.0

_WAIT_S = 0.002

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class MysqlReader:
    """Implements `contracts.SourceReader`.

    Args:
        settings: The source's.
        session: Where to read from at first.
        anchor: True to hand out the session's checkpoint itself first, so that the stream knows
            where the source began even if nothing ever changes.
        checkpoint_interval: How often an idle source moves its checkpoint, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        session: Session,
        *,
        anchor: bool,
        checkpoint_interval: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        self._settings = settings
        self._session: Session | None = session
        self._reconnection: Reconnection[Session] | None = None
        self._last = session.checkpoint
        self._anchor = anchor
        self._interval = checkpoint_interval
        self._handed_at = time.monotonic()
        self._failures = 0
        self._attempts_seen = 0
        self._lost = False

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
        if self._session is None:
            return self._mend()
        try:
            return self._next(self._session)
        except RetryableError as error:
            return self._lose(self._session, error)

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Nothing: a server keeps its log by its own rules, whoever reads it."""

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        if self._reconnection is not None:
            self._reconnection.abandon()
            self._reconnection = None
        if self._session is not None:
            self._session.close()
            self._session = None

    def _next(self, session: Session) -> Chunk | None:
        decoder = session.decoder
        chunk = decoder.chunk(idle=False)
        if chunk is None:
            idle = self._fill(session)
            chunk = decoder.chunk(idle=idle)
            if chunk is None and idle and time.monotonic() - self._handed_at >= self._interval:
                chunk = decoder.advance()
            if chunk is None and idle and session.stream.wait(_WAIT_S):
                chunk = decoder.chunk(idle=self._fill(session))
        if chunk is None:
            return None
        self._last = chunk.checkpoint
        self._handed_at = time.monotonic()
        return chunk

    def _fill(self, session: Session) -> bool:
        """Decode what has arrived, up to a full chunk; True when the socket is empty."""
        decoder = session.decoder
        while not decoder.full:
            received = session.stream.drain()
            if received.events:
                decoder.feed(received.events)
                self._found_back()
            if not received.more:
                return not decoder.full
        return False

    def _lose(self, session: Session, error: RetryableError) -> Chunk:
        """Begin to reconnect; repeat the checkpoint, so that a fenced flow learns of it."""
        self._failures += 1
        self._session = None
        session.close()
        if not self._lost:
            self._lost = True
            _log.warning(
                f"{self._settings.type} connection lost",
                source=self._settings.source,
                code=error.code,
                error=error.message,
            )
        self._attempts_seen = 0
        self._reconnection = Reconnection(
            partial(start, self._settings, self._last, first=False),
            self._failures,
            "mysql",
            self._settings.source,
        )
        return self._repeat()

    def _mend(self) -> Chunk | None:
        """Take the new session when there is one; repeat the checkpoint at every failed attempt."""
        reconnection = self._reconnection
        if reconnection is None:
            return None
        session = reconnection.take()
        if session is not None:
            self._reconnection = None
            self._session = session
            return None
        if reconnection.attempts == self._attempts_seen:
            return None
        self._attempts_seen = reconnection.attempts
        return self._repeat()

    def _found_back(self) -> None:
        """The log flows: only then has a reconnect succeeded."""
        if self._failures:
            self._failures = 0
            self._lost = False
            _log.info(f"{self._settings.type} connection back", source=self._settings.source)

    def _repeat(self) -> Chunk:
        return Chunk(self._settings.source, [], self._last, self._last.state)
