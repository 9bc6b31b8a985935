"""Looks after the log that a source's server keeps, beside whatever the flow is waiting for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from connectors.errors import FatalError, GapError, WaxtapError
from connectors.metrics import source_log_endangered, source_log_limit, source_log_retained

if TYPE_CHECKING:
    from connectors.contracts.source import Guarded, LogHealth

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

INTERVAL_S = 5.0


class LogWatch:
    """Has a source look at its server every few seconds, in a thread of its own.

    So it goes on while the flow's worker waits for NATS, or has not even begun. Tells of danger in
    the log, once until it is over, and all the time in metrics. A server that does not answer is
    told of by whoever reads from it.

    Args:
        name: The source's name.
        source: The source.
        interval: Seconds between two looks.
    """

    def __init__(self, name: str, source: Guarded, interval: float = INTERVAL_S) -> None:
        self._name, self._source, self._interval = name, source, interval
        self._retained = source_log_retained.labels(name)
        self._limit = source_log_limit.labels(name)
        self._endangered = source_log_endangered.labels(name)
        self._endangered.set(0)
        self._told = self._refused = False
        self._dropped = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"waxtap-{name}-log", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See whether the source was given up to save its server.

        Raises:
            GapError: `source.log_given_up`.
        """
        if self._dropped:
            raise GapError(
                "source.log_given_up",
                self._dropped,
                where=f"sources.{self._name}",
                cure="start the source again: it then names the gap and how to accept it",
            )

    def stop(self) -> None:
        """End; waits for a moment at most. Never raises."""
        self._stopped.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            try:
                health = self._source.guard()
            except FatalError as error:
                if not self._refused:
                    self._refused = True
                    _log.warning(
                        "the server's log cannot be looked after",
                        source=self._name,
                        reason=str(error),
                    )
            except WaxtapError as error:
                _log.debug("the server does not answer", source=self._name, reason=str(error))
            else:
                self._note(health)
            if self._dropped or self._stopped.wait(self._interval):
                return

    def _note(self, health: LogHealth | None) -> None:
        if health is None:
            return
        self._refused = False
        self._retained.set(health.retained)
        self._limit.set(health.limit)
        self._endangered.set(health.endangered)
        if health.dropped:
            self._dropped = health.message
            _log.warning(
                "given up to save the server",
                source=self._name,
                what=health.dropped,
                reason=health.message,
            )
        elif health.endangered and not self._told:
            _log.warning("the server's log is in danger", source=self._name, reason=health.message)
        elif self._told and not health.endangered:
            _log.info("the server's log is safe again", source=self._name)
        self._told = health.endangered
