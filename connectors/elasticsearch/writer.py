"""The sink's writer: takes batches over, and sends them by threads of its own.

One thread plans; `parallelism` others send. Documents carry external versions, so bulks may arrive
in any order. The planning thread holds a bulk back only where versions do not help: behind those
under way that hold a document which it deletes (a tombstone is not kept for ever), completes from
the target, or from which another one is completed.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from connectors.batch_queue import BatchQueue
from connectors.contracts.sink import Batch
from connectors.elasticsearch.bulk import cut
from connectors.elasticsearch.client import connect
from connectors.elasticsearch.indices import Indices
from connectors.elasticsearch.jobs import Jobs
from connectors.elasticsearch.lanes import Lanes
from connectors.elasticsearch.offsets import Bookkeeping
from connectors.elasticsearch.plan import Planner, Write
from connectors.elasticsearch.sender import Closed, Sender
from connectors.errors import FencedError, PermanentError, RetryableError
from connectors.stopping import wait_until
from connectors.subjects import stored_upto
from connectors.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elasticsearch import Elasticsearch

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Claim
    from connectors.elasticsearch.spec import SinkSpec

# Offsets are stored at a flush, and otherwise no more often than this.
OFFSET_EVERY_S = 1.0
_JOIN_S = 2.0


class ElasticsearchWriter:
    """Writes one claim's batches; see `contracts.SinkWriter`.

    Args:
        spec: The target.
        claim: The right to write.
        stop: Once set, a transient failure or a silent target is no longer waited for: `write`,
            `flush` and `replay` raise RetryableError.
    """

    def __init__(self, spec: SinkSpec, claim: Claim, stop: threading.Event) -> None:
        self._spec, self._claim, self._stop = spec, claim, stop
        self._planner = Planner(spec, claim.share.stream)
        self._skip_until = max(claim.offsets.values(), default=0)
        self._state = threading.Condition()
        self._waiting = BatchQueue()
        self._busy = self._flushing = False
        self._written = self._stored = 0
        self._stored_at = -math.inf
        self._error: Exception | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stored(self) -> int:
        """Everything that was written up to this sequence is stored together with its offset."""
        return self._stored

    def write(self, batch: Batch) -> None:
        """Take a batch over; waits while enough is under way.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: A change of this or an earlier batch is refused for good.
            GapError: The target's bookkeeping does not fit its documents.
            ConfigError: An index cannot be made.
            RetryableError: `elasticsearch.interrupted`: `stop` was set while the target was in
                trouble.
        """
        if batch.changes and batch.changes[0].sequence <= self._skip_until:
            batch = Batch(batch.claim, self._behind_offsets(batch.changes), batch.upto)
        self._put(batch)

    def flush(self) -> None:
        """Return once everything written is stored together with its offset. Raises as `write`."""
        with self._state:
            self._flushing = True
            self._state.notify_all()
            self._wait_until(lambda: not (self._waiting or self._busy))
            self._flushing = False

    def replay(self, changes: Sequence[Delivered]) -> None:
        """Store dead letters; what the target has of later changes stays. Raises as `write`."""
        self.flush()
        if changes:
            self._put(Batch(self._claim, list(changes), self._written))
            self.flush()

    def close(self) -> None:
        """Let go of the connections without waiting for what is under way. Never raises."""
        with self._state:
            self._closing.set()
            self._state.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_JOIN_S)

    def _behind_offsets(self, changes: Sequence[Delivered]) -> list[Delivered]:
        """Changes that the target did not have at the claim, each subject by its own offset."""
        offsets = self._claim.offsets
        known = {name: stored_upto(offsets, name) for name in {c.subject for c in changes}}
        return [change for change in changes if change.sequence > known[change.subject]]

    def _put(self, batch: Batch) -> None:
        if batch.claim.epoch != self._claim.epoch:
            raise FencedError(
                "elasticsearch.fenced",
                f"the batch belongs to epoch {batch.claim.epoch}, not {self._claim.epoch}",
                where=f"sink {self._claim.share.sink}",
            )
        with self._state:
            self._start()
            self._wait_until(lambda: self._waiting.room)
            self._waiting.put(batch)
            self._written = max(self._written, batch.upto)
            self._state.notify_all()

    def _wait_until(self, done: Callable[[], bool]) -> None:
        over = wait_until(lambda: self._error is not None or done(), self._state, self._stop)
        if not over:
            raise RetryableError(
                "elasticsearch.interrupted", "stopped while the target did not answer"
            )
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        if self._closing.is_set() and self._error is None:
            raise RetryableError("elasticsearch.closed", "the writer has been closed")
        if self._thread is None and self._error is None:
            self._thread = threading.Thread(
                target=self._run, name=f"elasticsearch-sink-{self._claim.share.sink}", daemon=True
            )
            self._thread.start()

    def _run(self) -> None:
        share = self._claim.share
        trouble = Trouble(share, "connectors.elasticsearch.sink")
        lanes = Lanes(self._spec.parallelism, f"elasticsearch-{share.sink}")
        client: Elasticsearch | None = None
        try:
            client = connect(self._spec)
            books = Bookkeeping(client)
            indices = Indices(client, self._spec)
            sender = Sender(
                client,
                books,
                self._claim,
                trouble,
                self._stop,
                self._closing,
                indices.conflict,
                timed=self._spec.version == "time",
            )
            jobs = Jobs(lanes, self._spec.parallelism + 1, sender, self._state, self._closing)
            self._work(sender, jobs, indices, books)
        except Closed:
            return
        except Exception as error:  # noqa: BLE001 - raised to whoever writes or flushes
            with self._state:
                self._error = error
        finally:
            self._closing.set()
            lanes.close()
            if client is not None:
                client.close()
            with self._state:
                self._waiting.clear()
                self._busy = False
                self._state.notify_all()

    def _work(self, sender: Sender, jobs: Jobs, indices: Indices, books: Bookkeeping) -> None:
        generation = sender.patiently(lambda: books.check(self._claim))
        while (batches := self._take(jobs)) is not None:
            try:
                if batches:
                    self._send(batches, generation, sender, jobs, indices)
                jobs.settle()
            except PermanentError:
                # What lies before the culprit need not be written again.
                self._store(sender, jobs, books)
                raise
            if self._offset_due(jobs):
                self._store(sender, jobs, books)

    def _send(
        self,
        batches: Sequence[Batch],
        generation: int,
        sender: Sender,
        jobs: Jobs,
        indices: Indices,
    ) -> None:
        changes = [change for batch in batches for change in batch.changes]
        steps = self._planner.plan(changes, generation)
        sender.patiently(lambda: indices.ensure(self._planner.tables))
        self._check(changes, indices)
        for step in steps:
            if isinstance(step, Write):
                for part in cut(step.documents):
                    jobs.send(part)
            else:
                jobs.drain()
                sender.truncate(step)
        jobs.end(batches[-1].upto)

    def _check(self, changes: Sequence[Delivered], indices: Indices) -> None:
        """Raise the refusals of those whose shape does not fit its index."""
        refused = [
            PermanentError(
                error.code,
                error.message,
                where=error.where,
                cure=error.cure,
                sequence=change.sequence,
            )
            for change in changes
            if (error := indices.refused.get(self._planner.place(change))) is not None
        ]
        if refused:
            refused[0].also = tuple(refused[1:])
            raise refused[0]

    def _store(self, sender: Sender, jobs: Jobs, books: Bookkeeping) -> None:
        upto = jobs.reached
        if upto > self._stored:
            sender.patiently(lambda: books.store(self._claim, upto))
            self._stored, self._stored_at = upto, time.monotonic()

    def _take(self, jobs: Jobs) -> list[Batch] | None:
        """Wait for something to do: batches, jobs that have ended, an offset that is due."""
        with self._state:
            self._busy = not jobs.empty or jobs.reached > self._stored
            self._state.notify_all()
            while not (self._waiting or jobs.advanced or self._offset_due(jobs)):
                if self._closing.is_set():
                    return None
                late = self._stored_at + OFFSET_EVERY_S - time.monotonic()
                self._state.wait(max(late, 0.0) if jobs.reached > self._stored else None)
            if self._closing.is_set():
                return None
            self._busy = True
            batches = self._waiting.take()
            self._state.notify_all()
            return batches

    def _offset_due(self, jobs: Jobs) -> bool:
        if jobs.reached <= self._stored:
            return False
        if self._flushing and jobs.empty and not self._waiting:
            return True
        return time.monotonic() >= self._stored_at + OFFSET_EVERY_S
