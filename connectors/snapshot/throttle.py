"""Lets so many rows a second pass, and no more."""

from __future__ import annotations

import time


class Throttle:
    """A bucket that holds nothing: what has passed is waited for before more passes.

    Attributes:
        rate: Rows a second; 0: any number.
    """

    def __init__(self, rate: int = 0) -> None:
        self.rate = rate
        self._free_at = 0.0

    @property
    def open(self) -> bool:
        """Whether rows may pass now."""
        return not self.rate or time.monotonic() >= self._free_at

    def passed(self, rows: int) -> None:
        """So many did."""
        if self.rate:
            self._free_at = max(self._free_at, time.monotonic()) + rows / self.rate

    def change(self, rate: int) -> None:
        """Let another number pass from now on."""
        self.rate, self._free_at = rate, 0.0
