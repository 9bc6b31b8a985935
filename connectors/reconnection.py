"""Opens a source's new session in the background, again and again until it works."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from connectors.backoff import doubled
from connectors.errors import FatalError, RetryableError
from connectors.metrics import source_in_trouble, source_retries

if TYPE_CHECKING:
    from collections.abc import Callable


class Session(Protocol):
    """What is opened."""

    def close(self) -> None:
        """Let go of it. Never raises."""
        ...


Opened = TypeVar("Opened", bound=Session)

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0
# For so long a verdict that can never change is kept back. A flow that was fenced while it was
# suspended finds its slot moved on; it must get the chance to learn from its stream that it was
# fenced, instead of reporting a gap that is none.
_VERDICT_S = 2.0


def delay(failures: int) -> float:
    """How long to wait after so many failures in a row: 0.1 s doubling up to 10 s, with jitter."""
    return doubled(failures, _FIRST_DELAY_S, _LONGEST_DELAY_S)


class Reconnection(Generic[Opened]):
    """Attempts with exponential backoff, in a thread of their own.

    Args:
        attempt: Opens a session, or raises.
        failures: How many failures came before; the first attempt waits accordingly.
        connector: Whose it is, such as `postgres`; begins the code of its own error.
        source: The source's name, for the thread.
    """

    def __init__(
        self, attempt: Callable[[], Opened], failures: int, connector: str, source: str
    ) -> None:
        self._attempt = attempt
        self._connector = connector
        self._failures = failures
        self._lock = threading.Lock()
        self._abandoned = threading.Event()
        self._session: Opened | None = None
        self._verdict: FatalError | None = None
        self._attempts = 0
        self._trouble = source_in_trouble.labels(source)
        self._retries = source_retries.labels(source)
        self._trouble.set(1)
        self._thread = threading.Thread(
            target=self._run, name=f"waxtap-{source}-reconnect", daemon=True
        )
        self._thread.start()

    @property
    def attempts(self) -> int:
        """How many attempts have failed so far."""
        return self._attempts

    def take(self) -> Opened | None:
        """The new session once there is one.

        Raises:
            FatalError: No attempt can ever succeed.
        """
        alive = self._thread.is_alive()
        with self._lock:
            session, self._session = self._session, None
            if session is None and self._verdict is not None:
                raise self._verdict
        if session is None and not alive:
            raise FatalError(
                f"{self._connector}.reconnection_died",
                "reconnecting ended unexpectedly; see the traceback",
            )
        if session is not None:
            self._trouble.set(0)
        return session

    def abandon(self) -> None:
        """Give up; a session that is just being opened is closed. Waits for a moment at most."""
        with self._lock:
            self._abandoned.set()
            session, self._session = self._session, None
        if session is not None:
            session.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        failures = self._failures
        condemned_at: float | None = None
        wait = delay(failures) if failures else 0.0
        while not self._abandoned.wait(wait):
            try:
                session = self._attempt()
            except RetryableError:
                condemned_at = None
            except FatalError as error:
                condemned_at = condemned_at or time.monotonic()
                if time.monotonic() - condemned_at >= _VERDICT_S:
                    with self._lock:
                        self._verdict = error
                    return
            else:
                self._deliver(session)
                return
            failures += 1
            self._attempts += 1
            self._retries.inc()
            wait = delay(failures)

    def _deliver(self, session: Opened) -> None:
        with self._lock:
            if not self._abandoned.is_set():
                self._session = session
                return
        session.close()
