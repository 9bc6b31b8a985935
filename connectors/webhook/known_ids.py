"""Ids of requests that this endpoint has stored lately, or is storing.

JetStream knows every repetition; this keeps most of them from being sent there, because one in a
batch makes all of the batch be sent again.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from connectors.errors import RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Beyond that, those that were stored longest ago are forgotten.
_MOST = 100_000


class Storing:
    """One id that is being stored."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.stored_at: float | None = None

    def stored(self, now: float) -> None:
        """It is stored for good."""
        self.stored_at = now


class KnownIds:
    """Used inside one event loop.

    Args:
        window: For how long an id is known, in seconds.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._until: dict[str, float] = {}
        self._storing: dict[str, Storing] = {}

    async def settled(self, identity: str, now: float) -> bool:
        """Whether it is stored; what is being stored is waited for.

        Raises:
            RetryableError: The one that was waited for could not be stored.
        """
        under_way = self._storing.get(identity)
        if under_way is None:
            return self._until.get(identity, now) > now
        await under_way.over.wait()
        if under_way.stored_at is None:
            raise RetryableError("webhook.not_stored", "the same request was not stored")
        return True

    @contextmanager
    def storing(self, identity: str) -> Iterator[Storing]:
        """Keep others of the same id waiting until the block is left."""
        storing = self._storing[identity] = Storing()
        try:
            yield storing
        finally:
            del self._storing[identity]
            if storing.stored_at is not None:
                self._until.pop(identity, None)
                self._until[identity] = storing.stored_at + self._window
                self._forget(storing.stored_at)
            storing.over.set()

    def _forget(self, now: float) -> None:
        while self._until:
            identity = next(iter(self._until))
            if self._until[identity] > now and len(self._until) <= _MOST:
                return
            del self._until[identity]
