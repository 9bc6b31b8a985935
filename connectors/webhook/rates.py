"""How many requests are taken in a time: token buckets, free of I/O."""

from __future__ import annotations

from collections import OrderedDict

# Beyond that the clients that were seen longest ago are forgotten.
_MOST_CLIENTS = 10_000


class Rate:
    """So many requests a second in the long run, and so many at once.

    Args:
        per_second: The rate.
        burst: How many may come at once.
    """

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._at = burst, 0.0

    def wait(self, now: float) -> float:
        """Take one; or the seconds until there will be one (0: it was taken)."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._per_second


class Rates:
    """One rate for all clients together, and one for each.

    Args:
        together: For all; 0: any rate.
        each: For each client's address; 0: any rate.
        seconds_at_once: What may come at once, in seconds of the rate.
    """

    def __init__(self, together: float, each: float, seconds_at_once: float) -> None:
        self._seconds = seconds_at_once
        self._together = self._rate(together) if together else None
        self._each = each
        self._clients: OrderedDict[str, Rate] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Seconds until a request of this client may come again; 0: it may now, and is counted."""
        if self._each:
            rate = self._clients.get(client)
            if rate is None:
                rate = self._clients[client] = self._rate(self._each)
                if len(self._clients) > _MOST_CLIENTS:
                    self._clients.popitem(last=False)
            else:
                self._clients.move_to_end(client)
            if wait := rate.wait(now):
                return wait
        return self._together.wait(now) if self._together else 0.0

    def _rate(self, per_second: float) -> Rate:
        return Rate(per_second, max(1.0, per_second * self._seconds))
