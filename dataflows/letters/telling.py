"""What the log says of dead letters: each kind at once, and many of a kind as a count."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from connectors.letters import State
from connectors.metrics import dead_letters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.sink import Share
    from connectors.letters import Letter

log = structlog.get_logger()

_EVERY = 10.0


class Telling:
    """Tells of the dead letters of a share.

    Args:
        share: Whose they are.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._untold: Counter[str] = Counter()
        self._told: dict[str, float] = {}

    def put_aside(self, letters: Iterable[Letter]) -> None:
        """Tell of letters that were stored just now."""
        now = time.monotonic()
        for letter in letters:
            dead_letters.labels(self._share.sink, self._share.stream, letter.state.value).inc()
            if letter.state is State.PARKED:
                self._untold[""] += 1
                continue
            code = letter.reason.code
            if now - self._told.get(code, -_EVERY) < _EVERY:
                self._untold[code] += 1
                continue
            self._told[code] = now
            log.warning(
                "a change became a dead letter",
                sink=self._share.sink,
                stream=self._share.stream,
                sequence=letter.sequence,
                topic=letter.topic,
                code=code,
                reason=letter.reason.message,
                more_since=self._untold.pop(code, 0),
                parked_since=self._untold.pop("", 0),
            )
