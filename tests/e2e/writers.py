"""Threads that write until they are told to stop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Writers:
    """Runs functions in threads of their own.

    Args:
        works: Each of them returns soon after `stopping` is set.
        stopping: Set by `stop`, or when one of them fails.
    """

    def __init__(self, works: Sequence[Callable[[], None]], stopping: threading.Event) -> None:
        self._stopping = stopping
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=[work]) for work in works]

    def start(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop them and wait for them. Raises what one of them could not cope with."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self._failures.append(error)
            self._stopping.set()
