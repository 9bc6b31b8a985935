"""Bulks under way, in the order of the stream: which may begin, and how far all of them are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from connectors.elasticsearch.sender import Closed

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Sequence
    from concurrent.futures import Future

    from connectors.elasticsearch.lanes import Lanes
    from connectors.elasticsearch.plan import Document
    from connectors.elasticsearch.sender import Sender

_Names = frozenset[tuple[str, str]]
_NONE: _Names = frozenset()


@dataclass(slots=True)
class _Job:
    """A bulk under way, or only the end of a batch.

    Attributes:
        future: How it ended; None: nothing had to be sent.
        names: Its documents.
        origins: Documents that some of them were completed from.
        upto: Where the batch that it ends, does; 0: it ends none.
    """

    future: Future[None] | None
    names: _Names = _NONE
    origins: _Names = _NONE
    upto: int = 0

    @property
    def done(self) -> bool:
        return self.future is None or self.future.done()


class Jobs:
    """Used by the planning thread alone, while it does not hold `state`.

    Args:
        lanes: Carry the requests.
        limit: How many may be under way.
        sender: Sends them.
        state: Notified whenever one has ended.
        closing: Once set, nothing is waited for.
    """

    def __init__(
        self,
        lanes: Lanes,
        limit: int,
        sender: Sender,
        state: threading.Condition,
        closing: threading.Event,
    ) -> None:
        self._lanes, self._limit, self._sender = lanes, limit, sender
        self._state, self._closing = state, closing
        self._jobs: deque[_Job] = deque()
        self.reached = 0

    @property
    def empty(self) -> bool:
        """Nothing is under way."""
        return not self._jobs

    @property
    def advanced(self) -> bool:
        """`settle` would find something."""
        return bool(self._jobs) and self._jobs[0].done

    def send(self, documents: Sequence[Document]) -> None:
        """Begin a bulk, as soon as nothing under way stands against it.

        Raises:
            Closed: The writer has been closed.
            WaxtapError: What an earlier bulk has raised.
        """
        names = frozenset([(document.target, document.id) for document in documents])
        missing = [document for document in documents if document.missing]
        origins = frozenset([(document.target, document.origin) for document in missing])
        deleted = {(d.target, d.id) for d in documents if d.source is None}
        delicate = origins | deleted
        self._wait_until(lambda: not self._touched(delicate) and not self._origin_of(names))
        if missing:
            documents = self._sender.completed(documents)
        self._wait_until(lambda: sum(not job.done for job in self._jobs) < self._limit)
        if documents:
            future = self._lanes.start(partial(self._sender.send, documents))
            self._jobs.append(_Job(future, names, origins))
            future.add_done_callback(self._ended)

    def drain(self) -> None:
        """Return once nothing is under way. Raises as `send`."""
        self._wait_until(lambda: not self._jobs)

    def end(self, upto: int) -> None:
        """What was sent since the last call ends a batch."""
        self._jobs.append(_Job(None, upto=upto))

    def settle(self) -> None:
        """Forget what has ended, and advance `reached`. Raises as `send`."""
        while self.advanced:
            job = self._jobs[0]
            if job.future is not None:
                job.future.result()
            self._jobs.popleft()
            self.reached = max(self.reached, job.upto)

    def _touched(self, names: Collection[tuple[str, str]]) -> bool:
        return bool(names) and any(not job.names.isdisjoint(names) for job in self._jobs)

    def _origin_of(self, names: _Names) -> bool:
        return any(not job.origins.isdisjoint(names) for job in self._jobs)

    def _wait_until(self, done: Callable[[], bool]) -> None:
        while True:
            self.settle()
            if done():
                return
            with self._state:
                while not self.advanced and not done():
                    if self._closing.is_set():
                        raise Closed
                    self._state.wait()

    def _ended(self, _future: Future[None]) -> None:
        with self._state:
            self._state.notify_all()
