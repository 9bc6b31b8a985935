"""One log line when an endpoint is in trouble, with the cause, and one when that is over."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from connectors.contracts import Share

# An endpoint that stumbles again and again is told of once in so many seconds.
_QUIET_S = 10.0

_log = structlog.get_logger("connectors.webhook.sink")


class Trouble:
    """What several threads meet, told once for all of them.

    Args:
        share: Whose delivery it is.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._lock = threading.Lock()
        self._among: set[object] = set()
        self._since = self._quiet_until = 0.0
        self._attempts = 0
        self._open = False

    def told(self, whose: object, reason: str) -> None:
        """An attempt of someone's has failed."""
        with self._lock:
            now = time.monotonic()
            if not self._among:
                self._since, self._attempts = now, 0
            self._among.add(whose)
            self._attempts += 1
            if self._open or now < self._quiet_until:
                return
            self._open = True
            self._quiet_until = now + _QUIET_S
            _log.warning(
                "target_is_in_trouble",
                sink=self._share.sink,
                stream=self._share.stream,
                reason=reason,
            )

    def over(self, whose: object) -> bool:
        """Someone has succeeded; returns whether it had failed before."""
        if whose not in self._among:
            return False
        with self._lock:
            self._among.discard(whose)
            if self._open and not self._among:
                self._open = False
                _log.info(
                    "target_is_back",
                    sink=self._share.sink,
                    stream=self._share.stream,
                    after_s=round(time.monotonic() - self._since, 1),
                    attempts=self._attempts,
                )
            return True
