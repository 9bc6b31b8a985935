"""Ids of requests that this endpoint has stored lately, or is storing.

JetStream knows every repetition; this keeps most of them from being sent there, because one in a
batch makes all of the batch be sent again.
"""

from __future__ import annotations

import asyncio

from connectors.errors import RetryableError

# Beyond that, those that were stored longest ago are forgotten.
_MOST = 100_000


class KnownIds:
    """Used inside one event loop.

    Args:
        window: For how long an id is known, in seconds.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._until: dict[str, float] = {}
        # Those that wait for the outcome of an id that is being stored.
        self._storing: dict[str, list[asyncio.Future[bool]]] = {}

    async def settled(self, identity: str, now: float) -> bool:
        """Whether it is stored; what is being stored is waited for.

        After False the caller stores it, and calls `over`.

        Raises:
            RetryableError: The one that was waited for could not be stored.
        """
        waiting = self._storing.get(identity)
        if waiting is None:
            if self._until.get(identity, now) > now:
                return True
            self._storing[identity] = []
            return False
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting.append(outcome)
        if not await outcome:
            raise RetryableError("webhook.not_stored", "the same request was not stored")
        return True

    def over(self, identity: str, *, stored: bool, now: float) -> None:
        """An id is stored for good, or it is not known whether it is."""
        for outcome in self._storing.pop(identity):
            if not outcome.done():
                outcome.set_result(stored)
        if stored:
            self._until.pop(identity, None)
            self._until[identity] = now + self._window
            self._forget(now)

    def _forget(self, now: float) -> None:
        while self._until:
            identity = next(iter(self._until))
            if self._until[identity] > now and len(self._until) <= _MOST:
                return
            del self._until[identity]
