"""One log line when a target is in trouble, and one when it is back, however often it is tried."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger


class Trouble:
    """What all requests to one target go through together. Usable from any thread.

    Args:
        log: Where to tell it; bound to what names the target.
    """

    def __init__(self, log: BoundLogger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._failing: set[object] = set()
        self._since = 0.0
        self._attempts = 0

    def failed(self, who: object, reason: str) -> None:
        """Something has failed and will be tried again."""
        with self._lock:
            first = not self._failing
            self._failing.add(who)
            if first:
                self._since, self._attempts = time.monotonic(), 0
            self._attempts += 1
        if first:
            self._log.warning("target_is_in_trouble", reason=reason)

    def dropped(self, who: object) -> None:
        """It is no longer tried."""
        with self._lock:
            self._failing.discard(who)

    def over(self, who: object) -> None:
        """It has succeeded; harmless when it never failed."""
        with self._lock:
            if who not in self._failing:
                return
            self._failing.discard(who)
            if self._failing:
                return
            after, attempts = round(time.monotonic() - self._since, 1), self._attempts
        self._log.info("target_is_back", after_s=after, attempts=attempts)
