"""Threads that carry requests. They end with the process, even while a server is silent."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_Work = tuple["Callable[[], None]", "Future[None]"]


class Lanes:
    """So many requests at once, begun in the order in which they came.

    Args:
        count: How many.
        name: Of the threads.
    """

    def __init__(self, count: int, name: str) -> None:
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    def start(self, action: Callable[[], None]) -> Future[None]:
        """Do it as soon as a lane is free; the future tells how it ended."""
        future: Future[None] = Future()
        self._work.put((action, future))
        return future

    def close(self) -> None:
        """Begin nothing further. What is under way goes on."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            action, future = work
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - raised to whoever asks the future
                future.set_exception(error)
            else:
                future.set_result(None)
