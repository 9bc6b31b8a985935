"""The sink's writer: takes batches over and stores them on a thread of its own.

While the target works on one transaction, the flow prepares the next batches; those that wait
become one transaction, so that small batches cost little.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import psycopg

from connectors.backoff import doubled
from connectors.batch_queue import BatchQueue
from connectors.errors import RetryableError
from connectors.postgres.server import one_line
from connectors.postgres.target.lanes import LanesStore
from connectors.postgres.target.offsets import fenced
from connectors.postgres.target.session import is_transient
from connectors.postgres.target.store import Store
from connectors.postgres.target.whole import WholeStore
from connectors.stopping import pause, wait_until
from connectors.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Batch, Claim
    from connectors.postgres.spec import SinkSpec

# An offset that no rows go with may be this late.
LAZY_S = 3.0
# A source transaction that does not go on for so long lets go of its locks.
REST_S = 10.0
_BACKOFF_S = (0.05, 10.0)
_JOIN_S = 2.0


class PostgresWriter:
    """Writes one claim's batches; see `contracts.SinkWriter`.

    Args:
        spec: The target.
        claim: The right to write.
        stop: Once set, a transient failure or a silent target is no longer waited for: `write`
            and `flush` raise RetryableError.
    """

    def __init__(self, spec: SinkSpec, claim: Claim, stop: threading.Event) -> None:
        self._claim = claim
        self._stop = stop
        self._trouble = Trouble(claim.share, "connectors.postgres.sink")
        self._store = _store(spec, claim)
        self._state = threading.Condition()
        self._waiting = BatchQueue()
        self._letters: Sequence[Delivered] = ()
        self._busy = False
        self._flushing = False
        self._lazy_until = 0.0
        self._rest_at = 0.0
        self._error: Exception | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stored(self) -> int:
        """Everything written up to this sequence is in the target; see `contracts.SinkWriter`."""
        return self._store.stored

    def write(self, batch: Batch) -> None:
        """Take a batch over; waits while about two transactions' worth is under way.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: A change of this or an earlier batch is refused for good.
            RetryableError: `postgres.interrupted`: `stop` was set while the target was in trouble.
        """
        if batch.claim.epoch != self._claim.epoch:
            raise fenced(batch.claim)
        with self._state:
            self._start()
            self._wait_until(lambda: self._waiting.room)
            if not self._waiting:
                self._lazy_until = time.monotonic() + LAZY_S
            self._waiting.put(batch)
            self._state.notify_all()

    def flush(self) -> None:
        """Return once everything written is stored together with its offset. Raises as `write`.

        With whole transactions the beginning of one is kept back.
        """
        with self._state:
            if self._waiting or self._busy:
                self._flushing = True
                self._state.notify_all()
                self._wait_until(lambda: not (self._waiting or self._busy))
                self._flushing = False
            self._check()

    def replay(self, changes: Sequence[Delivered]) -> None:
        """Store dead letters behind everything written, each of them once; raises as `write`.

        When one is refused none of them is stored.
        """
        self.flush()
        if not changes:
            return
        with self._state:
            self._start()
            self._letters = changes
            self._state.notify_all()
            self._wait_until(lambda: not (self._letters or self._busy))

    def close(self) -> None:
        """Let go of the connection without waiting for what is under way. Never raises."""
        with self._state:
            self._closing.set()
            self._state.notify_all()
            thread, self._thread = self._thread, None
            if thread is not None and self._busy:
                self._hang_up()
        if thread is not None:
            thread.join(_JOIN_S)

    def _wait_until(self, done: Callable[[], bool]) -> None:
        over = wait_until(lambda: self._error is not None or done(), self._state, self._stop)
        if not over:
            raise RetryableError("postgres.interrupted", "stopped while the target did not answer")
        self._check()

    def _start(self) -> None:
        if self._closing.is_set():
            raise RetryableError("postgres.closed", "the writer has been closed")
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"postgres-sink-{self._claim.share.sink}", daemon=True
            )
            self._thread.start()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _hang_up(self) -> None:
        """Break the connection under a statement that may take long; its thread finds out."""
        for session in self._store.sessions:
            try:
                with socket.socket(fileno=os.dup(session.fileno())) as shared:
                    shared.shutdown(socket.SHUT_RDWR)
            except (OSError, psycopg.Error):
                continue  # it is broken already

    def _run(self) -> None:
        try:
            while work := self._take():
                self._persist(work)
        except Exception as error:  # noqa: BLE001 - raised to whoever writes or flushes
            with self._state:
                self._error = error
                self._waiting.clear()
        finally:
            with self._state:
                self._store.dispose()
                self._busy = False
                self._state.notify_all()

    def _take(self) -> Callable[[], None] | None:
        """Wait for batches, all that make one transaction, or for letters; None: it is over."""
        with self._state:
            self._busy = False
            self._state.notify_all()
            self._rest_at = time.monotonic() + REST_S
            while not self._closing.is_set() and not self._due():
                self._state.wait(self._patience())
            if self._closing.is_set():
                return None
            self._busy = True
            if self._letters:
                letters, self._letters = self._letters, ()
                return lambda: self._store.replay(letters)
            if not self._waiting:
                return self._store.rest
            batches = self._waiting.take()
            self._state.notify_all()
            return lambda: self._store.write(batches)

    def _due(self) -> bool:
        if self._letters:
            return True
        if not self._waiting:
            return self._store.holding and time.monotonic() >= self._rest_at
        return self._waiting.changes > 0 or self._flushing or time.monotonic() >= self._lazy_until

    def _patience(self) -> float | None:
        """How long nothing is to be done unless more comes; None: for ever."""
        if self._waiting:
            return self._lazy_until - time.monotonic()
        return self._rest_at - time.monotonic() if self._store.holding else None

    def _persist(self, work: Callable[[], None]) -> None:
        """Store what was taken, waiting out every transient failure."""
        attempts = 0
        while not self._closing.is_set():
            try:
                self._store.open()
                work()
            except psycopg.Error as error:
                if not is_transient(error):
                    raise
                reason = one_line(str(error))
            except RetryableError as error:
                reason = error.message
            else:
                self._trouble.over(self)
                return
            if self._closing.is_set():
                return
            self._trouble.failed(self, reason)
            attempts += 1
            self._pause(attempts, reason)

    def _pause(self, attempts: int, reason: str) -> None:
        if not pause(doubled(attempts, *_BACKOFF_S), self._closing, self._stop):
            raise RetryableError(
                "postgres.interrupted", f"stopped while the target was in trouble: {reason}"
            )


def _store(spec: SinkSpec, claim: Claim) -> Store:
    if spec.transactions:
        return WholeStore(spec, claim)
    return LanesStore(spec, claim) if spec.parallelism > 1 else Store(spec, claim)
