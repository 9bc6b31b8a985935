"""The thread that stores how far a claim has come, and finds out when a newer one exists."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from connectors.backoff import doubled
from connectors.errors import RetryableError

if TYPE_CHECKING:
    from connectors.contracts.sink import Claim, OffsetStore
    from connectors.trouble import Trouble
    from connectors.webhook.outbox import Outbox

# Offsets are stored about so often, in seconds, and whenever a flush waits for them.
_EVERY_S = 0.2
_BACKOFF_S = (0.05, 5.0)


class Keeper:
    """Stores the offset of a claim behind what has been delivered without a hole.

    Args:
        claim: Whose.
        offsets: Where.
        outbox: Tells how far it is, and is told of what is stored and of errors.
        trouble: Told when the offsets cannot be stored.
        name: Of the thread.
    """

    def __init__(
        self, claim: Claim, offsets: OffsetStore, outbox: Outbox, trouble: Trouble, name: str
    ) -> None:
        self._claim, self._offsets = claim, offsets
        self._outbox, self._trouble = outbox, trouble
        self._last = -_EVERY_S
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, which `Outbox.close` brings."""
        self._thread.join(timeout)

    def _run(self) -> None:
        attempts = 0
        try:
            while (upto := self._wait()) is not None:
                since = self._last = time.monotonic()
                try:
                    self._offsets.store(self._claim, upto)
                except RetryableError as error:
                    attempts += 1
                    self._trouble.failed(self, f"the offset cannot be stored: {error.message}")
                    self._sleep(attempts)
                    continue
                attempts = 0
                self._outbox.confirmed(since, upto)
                self._trouble.over(self)
        except Exception as error:  # noqa: BLE001 - raised to whoever writes or flushes
            self._outbox.fail(error)

    def _wait(self) -> int | None:
        """The offset to store now; None when it is over, and stored as far as it will come."""
        outbox = self._outbox
        with outbox.changed:
            while not outbox.closing:
                reached = outbox.reached
                ahead = reached > outbox.stored
                if outbox.error is not None and not outbox.sending:
                    return reached if ahead else None
                if outbox.wanted and outbox.error is None:
                    return reached
                left = self._last + _EVERY_S - time.monotonic()
                if ahead and (left <= 0 or (outbox.flushing and outbox.empty)):
                    return reached
                # Deliveries are not told one by one; while there are some it looks now and then.
                busy = ahead or not outbox.empty
                outbox.changed.wait(max(left, 0.01) if ahead else _EVERY_S if busy else None)
            return None

    def _sleep(self, attempts: int) -> None:
        until = time.monotonic() + doubled(attempts, *_BACKOFF_S)
        outbox = self._outbox
        with outbox.changed:
            while not outbox.closing and (left := until - time.monotonic()) > 0:
                outbox.changed.wait(left)
