"""One log line when a target is in trouble, with the cause, and one when that is over.

However often it is tried meanwhile, and by however many threads; the metric tells it all the time.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from connectors.metrics import sink_in_trouble, sink_retries

if TYPE_CHECKING:
    from connectors.contracts.sink import Share

# A target that stumbles again and again is told of once in so many seconds.
_QUIET_S = 10.0


class Trouble:
    """What all requests to one target go through together. Usable from any thread.

    Args:
        share: Whose delivery it is.
        name: Of the logger.
    """

    def __init__(self, share: Share, name: str) -> None:
        self._log = structlog.get_logger(name).bind(sink=share.sink, stream=share.stream)
        self._metric = sink_in_trouble.labels(share.sink, share.stream)
        self._metric.set(0)
        self._retries = sink_retries.labels(share.sink, share.stream)
        self._lock = threading.Lock()
        self._failing: set[object] = set()
        self._since = self._quiet_until = 0.0
        self._attempts = 0
        self._told = False

    def failed(self, who: object, reason: str) -> None:
        """An attempt of someone's has failed and will be repeated."""
        with self._lock:
            now = time.monotonic()
            if not self._failing:
                self._since, self._attempts = now, 0
                self._metric.set(1)
            self._failing.add(who)
            self._attempts += 1
            self._retries.inc()
            if self._told or now < self._quiet_until:
                return
            self._told = True
            self._quiet_until = now + _QUIET_S
            self._log.warning("target_is_in_trouble", reason=reason)

    def over(self, who: object) -> bool:
        """Someone has succeeded; returns whether it had failed before."""
        if who not in self._failing:
            return False
        with self._lock:
            self._failing.discard(who)
            if not self._failing:
                self._metric.set(0)
                if self._told:
                    self._told = False
                    after = round(time.monotonic() - self._since, 1)
                    self._log.info("target_is_back", after_s=after, attempts=self._attempts)
            return True

    def dropped(self, who: object) -> None:
        """Someone tries no longer."""
        with self._lock:
            self._failing.discard(who)
            if not self._failing:
                self._metric.set(0)
