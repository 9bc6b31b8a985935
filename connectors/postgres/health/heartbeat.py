"""Writes something small into the source's log now and then.

A logical message in a transaction of its own: it needs no table and no right, and the commit brings
it to the disk and to the slot. It is not given out as a change.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import structlog

from connectors.errors import FatalError, RetryableError
from connectors.postgres.pgoutput.decoder import HEARTBEAT
from connectors.postgres.server import Connection, connect, one_line

if TYPE_CHECKING:
    from connectors.postgres.setup.settings import Settings

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Heartbeat:
    """Beats in a thread and on a connection of its own, first at once.

    A server that is gone is told of by the reader; a beat that the server refuses is told once.

    Attributes:
        problem: As `Beside.problem`: there is none.

    Args:
        settings: The source's.
        interval: Seconds between two beats.
    """

    problem: FatalError | None = None

    def __init__(self, settings: Settings, interval: float) -> None:
        self._settings, self._interval = settings, interval
        self._stopped = threading.Event()
        self._warned = False
        self._thread = threading.Thread(
            target=self._run, name=f"waxtap-{settings.source}-heartbeat", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End; waits for a moment at most. Never raises."""
        self._stopped.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        connection: Connection | None = None
        try:
            while True:
                try:
                    if connection is None or connection.closed:
                        connection = connect(self._settings.writable_dsn, self._settings.source)
                    beat(connection, self._settings)
                    self._warned = False
                except RetryableError as error:
                    _log.debug("no heartbeat", source=self._settings.source, reason=str(error))
                except FatalError as error:
                    self._warn(str(error))
                if self._stopped.wait(self._interval):
                    return
        finally:
            if connection is not None:
                connection.close()

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("the heartbeat is refused", source=self._settings.source, reason=reason)


def beat(connection: Connection, settings: Settings) -> None:
    """Write one heartbeat, and what the owner wants done with it, in one transaction.

    Raises:
        RetryableError: `postgres.connection_lost`.
        FatalError: `postgres.heartbeat_refused`: the server refuses the owner's statement.
    """
    try:
        with connection.transaction():
            connection.execute("SELECT pg_logical_emit_message(true, %s, '')", [HEARTBEAT])
            if settings.heartbeat_sql:
                connection.execute(settings.heartbeat_sql.encode())
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise RetryableError("postgres.connection_lost", one_line(str(error))) from None
    except psycopg.Error as error:
        raise FatalError(
            "postgres.heartbeat_refused",
            one_line(str(error)),
            where=f"{settings.where}.heartbeat",
            cure="correct `sql`, or leave it out: the message alone needs no right and no table",
        ) from None
