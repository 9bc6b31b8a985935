"""When to poll, and how long to wait after a failure. Free of I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

from cronsim import CronSim

from connectors.backoff import doubled

if TYPE_CHECKING:
    from connectors.rest.spec import RestSourceSpec

_INTERVAL = timedelta(minutes=1)
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 60.0
# No server may keep a source waiting for longer than this.
_LONGEST_REQUEST_S = 3600.0
_random = Random()  # noqa: S311 - jitter is no secret


class Schedule:
    """The moments of a source's polls.

    Args:
        spec: Its interval or cron, and its jitter.
    """

    def __init__(self, spec: RestSourceSpec) -> None:
        self._interval = spec.interval or _INTERVAL
        self._cron, self._jitter = spec.cron, spec.jitter.total_seconds()

    @property
    def at_start(self) -> bool:
        """Whether a source that goes on polls at once; one that begins always does."""
        return not self._cron

    def wait(self, began: datetime, now: datetime) -> float:
        """Seconds from `now` to the next poll.

        Args:
            began: When the last one began; aware, as `now`.
            now: The time.
        """
        if self._cron:
            due = next(CronSim(self._cron, now.astimezone(UTC)))
        else:
            due = began + self._interval
        late = _random.uniform(0, self._jitter) if self._jitter else 0.0
        return max(0.0, (due - now).total_seconds()) + late


def delay(failures: int, asked: float | None = None) -> float:
    """Seconds to wait after so many failures in a row: doubling, with jitter, up to a minute.

    Args:
        failures: At least 1.
        asked: What the server asked for, which is the least; None: nothing.
    """
    own = doubled(failures - 1, _FIRST_DELAY_S, _LONGEST_DELAY_S)
    return own if asked is None else max(min(asked, _LONGEST_REQUEST_S), own)
