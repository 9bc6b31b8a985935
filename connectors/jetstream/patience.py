"""Waiting for NATS: as long as it takes, unless somebody wants to stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from connectors.errors import RetryableError
from connectors.jetstream.api import ApiError
from connectors.metrics import stream_in_trouble, stream_retries

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

log = structlog.get_logger()

UNREACHABLE = "jetstream.unreachable"

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_LOOK_EVERY = 0.1


class Patience:
    """Repeats attempts with growing pauses, and tells about trouble once.

    Args:
        where: The stream concerned.
        wake: Ends a pause early: something has changed.
        stops: Any of them, once set, ends all waiting.
    """

    def __init__(
        self, where: str, wake: threading.Event, stops: tuple[threading.Event, ...]
    ) -> None:
        self._where, self._wake, self._stops = where, wake, stops
        self._pause = _FIRST_PAUSE
        self._complaint = ""
        self._trouble = stream_in_trouble.labels(where)
        self._retries = stream_retries.labels(where)
        self._troubled = False

    @property
    def stopping(self) -> bool:
        """Whether somebody wants to stop."""
        return any(stop.is_set() for stop in self._stops)

    def repeat(self, attempt: Callable[[], T]) -> T:
        """Repeat an attempt until NATS lets it succeed.

        Raises:
            RetryableError: Stopped meanwhile.
        """
        while True:
            try:
                result = attempt()
            except RetryableError as error:
                reason = str(error)
                # The connection itself tells when it is lost and back.
                if error.code != UNREACHABLE:
                    self.complain("NATS does not do what it should, trying again", reason)
            except ApiError as error:
                reason = str(error)
                self.complain("JetStream refuses, trying again", reason)
            else:
                if self._troubled:
                    self._troubled = False
                    self._trouble.set(0)
                return result
            self.wait(reason)

    def wait(self, reason: str, *, woken: bool = True) -> None:
        """Pause, a little longer each time.

        Args:
            reason: What is waited for.
            woken: Whether a change ends the pause.

        Raises:
            RetryableError: Stopped meanwhile.
        """
        self._troubled = True
        self._trouble.set(1)
        self._retries.inc()
        end = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._wake.clear()
        while (left := end - time.monotonic()) > 0:
            if self.stopping:
                raise self.stopped(reason)
            if self._wake.wait(min(left, _LOOK_EVERY)):
                if woken:
                    return
                self._wake.clear()
        if self.stopping:
            raise self.stopped(reason)

    def stopped(self, reason: str) -> RetryableError:
        """The error that ends waiting."""
        return RetryableError(
            UNREACHABLE,
            f"stopped while waiting for NATS ({reason}); what was not stored is read again",
            where=self._where,
        )

    def complain(self, text: str, reason: str) -> None:
        """Warn, once until things go well again."""
        if self._complaint != text:
            self._complaint = text
            log.warning(text, stream=self._where, reason=reason)

    def went_well(self) -> None:
        """The next trouble starts anew; tells if there was a complaint."""
        self._pause = _FIRST_PAUSE
        if self._troubled:
            self._troubled = False
            self._trouble.set(0)
        if self._complaint:
            self._complaint = ""
            log.info("the stream takes messages again", stream=self._where)
