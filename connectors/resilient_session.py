"""A source's session that is replaced when it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

import structlog

from connectors.reconnection import Opened, Reconnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.errors import RetryableError

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ResilientSession(Generic[Opened]):
    """The present session of a reader, if there is one, and the search for the next one.

    Tells of a loss in two log lines: one when the session is lost, one when data flow again.

    Args:
        session: The first one, open.
        connector: Whose it is; begins the codes of errors.
        server: What the server is called in the log, such as `mariadb`.
        source: The source's name.
        hesitant: Wait a moment even before the first attempt: where a newer session ends an older
            one of the same source, the reader must not fight back before it has had the chance to
            learn that it was fenced.
    """

    def __init__(
        self, session: Opened, connector: str, server: str, source: str, *, hesitant: bool = False
    ) -> None:
        self._session: Opened | None = session
        self._connector = connector
        self._server = server
        self._source = source
        self._hesitant = hesitant
        self._reconnection: Reconnection[Opened] | None = None
        self._losses = 0
        self._attempts_seen = 0
        self._told = False

    @property
    def present(self) -> Opened | None:
        """The session to read from; None while it is lost."""
        return self._session

    def lose(self, error: RetryableError, attempt: Callable[[], Opened]) -> None:
        """Let go of the session, and begin to look for the next one.

        Args:
            error: What happened to it.
            attempt: Opens a session, or raises; called from another thread.
        """
        self._losses += 1
        if self._session is not None:
            self._session.close()
            self._session = None
        if not self._told:
            self._told = True
            _log.warning(
                f"{self._server} connection lost",
                source=self._source,
                code=error.code,
                error=error.message,
            )
        self._attempts_seen = 0
        failures = self._losses if self._hesitant else self._losses - 1
        self._reconnection = Reconnection(attempt, failures, self._connector, self._source)

    def mend(self) -> bool:
        """Take the new session when there is one.

        Returns:
            Whether a further attempt has failed: time to repeat the checkpoint, so that a flow
            that was fenced learns of it when it stores that.

        Raises:
            FatalError: No attempt can ever succeed.
        """
        if self._reconnection is None:
            return False
        self._session = self._reconnection.take()
        if self._session is not None:
            self._reconnection = None
            return False
        seen, self._attempts_seen = self._attempts_seen, self._reconnection.attempts
        return self._attempts_seen != seen

    def flows(self) -> None:
        """Data have come: only then has a reconnect succeeded."""
        self._losses = 0
        if self._told:
            self._told = False
            _log.info(f"{self._server} connection back", source=self._source)

    def close(self) -> None:
        """Let go of everything. Never raises."""
        if self._reconnection is not None:
            self._reconnection.abandon()
            self._reconnection = None
        if self._session is not None:
            self._session.close()
            self._session = None
