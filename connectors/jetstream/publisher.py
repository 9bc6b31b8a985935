"""Writes a source's stream: atomic batches in a chain, exactly once.

Every batch names the sequence that it must follow, so batches may be under way together: when one
fails, all later ones fail with it, and only a clean beginning is ever stored. After any doubt (lost
connection, no answer, wrong sequence) the stream itself tells what is stored: the rest is sent
again, or the writer learns that a newer one has taken over.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES
from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError, GapError, WaxtapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.examine import end_of_own_stream
from connectors.jetstream.frames import (
    Body,
    StoredCheckpoint,
    cut,
    encode_batch,
    encode_checkpoint,
)
from connectors.jetstream.inflight import Inflight
from connectors.jetstream.oversize import is_oversize, shrink
from connectors.jetstream.patience import Patience
from connectors.jetstream.refusals import Kind, classify
from connectors.jetstream.schemas import SchemaStore
from connectors.jetstream.shape_versions import ShapeVersions
from connectors.jetstream.stored import status
from connectors.jetstream.stream import PublisherState, checkpoint_subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.subscription import Subscription

    from connectors.contracts.changes import Change, TableSchema
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.shape_versions import NewVersion
    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.stream import StreamClaim
    from connectors.jetstream.wire import Incoming

# Enough to keep the server's disk busy while the next batch is encoded.
_BATCHES_UNDER_WAY = 4
_LARGE_BATCH = 250
_ANSWER_WITHIN = 15.0
_LOOK_EVERY = 0.1
# How long a stopping process waits for a healthy server's answers.
_LAST_WAIT = 5.0

_NO_ANSWER = api.Refusal(503, 0, "no answer")


class Publisher:
    """The writer of one stream.

    Waits out outages of any length with at most four batches in memory.

    Args:
        nats: Where the stream is.
        claim: The right to write it.
        interrupt: Once set, waiting for NATS ends with a RetryableError; a healthy server's
            answers are still waited for.

    Raises:
        RetryableError: Interrupted before NATS could be reached.
    """

    def __init__(
        self, nats: NatsSpec, claim: StreamClaim, interrupt: threading.Event | None = None
    ) -> None:
        self._spec, self._claim = nats, claim
        self._wake, self._closed = threading.Event(), threading.Event()
        stops = (self._closed, interrupt) if interrupt else (self._closed,)
        self._patience = Patience(claim.stream, self._wake, stops)
        self._answers: deque[Incoming] = deque()
        self._inflight = Inflight(claim.sequence)
        self._window = _BATCHES_UNDER_WAY
        self._trouble: api.Refusal | None = None
        self._doubted = False
        self._checkpoint = claim.checkpoint or Checkpoint("", {})
        self._written = time.monotonic()
        self._failure: WaxtapError | None = None
        self._lock = threading.RLock()
        self._connection: Connection = self._patience.repeat(partial(connect, nats))
        self._losses = -1
        try:
            self._inbox = self._connection.inbox()
            self._subscription: Subscription = self._patience.repeat(
                partial(self._connection.subscribe, f"{self._inbox}.*", self._answered)
            )
        except BaseException:
            self._connection.release()
            raise
        self._connection.watch(self._wake)
        self._schemas = SchemaStore(self._connection, nats.stream.replicas)
        self._versions = ShapeVersions(
            self._connection, claim.source, self._checkpoint.position, self._schemas
        )
        self._keeper: threading.Thread | None = None
        if claim.checkpoint_every:
            self._keeper = threading.Thread(target=self._keep, name="waxtap-keeper", daemon=True)
            self._keeper.start()

    def publish(
        self,
        messages: Sequence[tuple[str, Change]],
        checkpoint: Checkpoint,
        resume: dict[str, str],
        sink: str = "",
    ) -> None:
        """Take messages over; they may still be under way when the call returns.

        Blocks while four batches are under way. No messages: only the checkpoint is stored.

        Args:
            messages: Subject and change in log order; those of one change stand together.
            checkpoint: The source's state behind them.
            resume: The state of the checkpoint before them, for a cut inside.
            sink: The only sink that is given them; empty: all are.

        Raises:
            FencedError: A newer writer has claimed the stream.
            GapError: The stream was truncated, purged, replaced, or written by somebody else.
            ConfigError: The server refuses our messages for good.
            PermanentError: A message cannot be written as it is.
            RetryableError: Interrupted while waiting.
        """
        with self._lock:
            self._raise_failure()
            if not messages:
                self._write_checkpoint(checkpoint)
                return
            bodies = self._prepare(messages)
            for start, end in cut(messages, CHUNK_CHANGES, CHUNK_BYTES):
                whole = start == 0 and end == len(messages)
                part = messages if whole else messages[start:end]
                behind = checkpoint
                if end < len(messages):
                    behind = Checkpoint(part[-1][1].position, resume)
                some = {i - start: body for i, body in bodies.items() if start <= i < end}
                self._write(part, behind, some, sink)

    def note(self, table: TableSchema, position: str) -> NewVersion | None:
        """Count the shape of a change that is about to be published, unless its table has it now.

        Raises:
            As `publish`.
        """
        with self._lock:
            self._raise_failure()
            return self._patience.repeat(partial(self._versions.note, table, position))

    def schema(self, digest: str) -> TableSchema:
        """The shape with this hash. Raises as `SchemaStore.get`, and as `publish`."""
        with self._lock:
            return self._patience.repeat(partial(self._schemas.get, digest))

    def flush(self) -> None:
        """Return once everything published is stored. Raises as `publish`."""
        with self._lock:
            self._raise_failure()
            self._settle(0)

    def tick(self) -> None:
        """Write the last checkpoint again before it is half as old as messages may get.

        Runs by itself while messages expire (`max_age`). Raises as `publish`.
        """
        with self._lock:
            every = self._claim.checkpoint_every
            if every and time.monotonic() - self._written >= every * 0.75:
                self._write_checkpoint(self._checkpoint)
                self._settle(0)

    def state(self) -> PublisherState:
        """What is known to be stored; `stream.verify_not_behind` takes it."""
        stored = self._inflight.stored
        # A mere marker does not count: each start writes one.
        sequence = self._claim.base if stored == self._claim.sequence else stored
        return PublisherState(
            stream=self._claim.stream, created=self._claim.created, sequence=sequence
        )

    def close(self) -> None:
        """Let go of the connection without waiting for answers. Never raises."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._keeper is not None:
            self._keeper.join()
        self._connection.unwatch(self._wake)
        self._connection.unsubscribe(self._subscription)
        self._connection.release()

    def _prepare(self, messages: Sequence[tuple[str, Change]]) -> dict[int, Body]:
        """Store the shapes that these messages name, and make the large ones fit."""
        bodies = {}
        previous: object = None
        limit = self._connection.max_payload // 4
        for index, (_, change) in enumerate(messages):
            if change.table is not previous:
                previous = change.table
                if change.table is not None:
                    self._patience.repeat(partial(self._schemas.put, change.table))
            suspect = len(change.envelope) > limit or change.unavailable or change.json_nulls
            if suspect and is_oversize(change, self._connection.max_payload):
                store = partial(
                    shrink, self._connection, self._spec.stream, self._claim.source, change
                )
                bodies[index] = self._patience.repeat(store)
        return bodies

    def _write(
        self,
        messages: Sequence[tuple[str, Change]],
        behind: Checkpoint,
        bodies: dict[int, Body],
        sink: str,
    ) -> None:
        # A small batch costs the server nearly as much as a large one: while one is under way, more
        # changes gather for the next.
        self._settle(_BATCHES_UNDER_WAY - 1 if len(messages) >= _LARGE_BATCH else 0)
        name = self._inflight.next_name()
        frames = encode_batch(
            messages,
            batch=name,
            reply=f"{self._inbox}.{name}",
            expected=self._inflight.end,
            checkpoint=self._header(behind),
            bodies=bodies,
            sink=sink,
        )
        self._dispatch(name, frames, len(messages), behind)

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._settle(_BATCHES_UNDER_WAY - 1)
        name = self._inflight.next_name()
        frames = encode_checkpoint(
            checkpoint_subject(self._claim.source),
            reply=f"{self._inbox}.{name}",
            expected=self._inflight.end,
            checkpoint=self._header(checkpoint),
        )
        self._dispatch(name, frames, 1, checkpoint)

    def _dispatch(self, name: str, frames: bytes, messages: int, behind: Checkpoint) -> None:
        if not self._inflight:
            # Whatever was lost before concerned nothing of ours.
            self._losses = self._connection.losses if self._connection.connected else -1
        self._inflight.add(name, frames, messages)
        self._send()
        self._checkpoint = behind
        self._written = time.monotonic()

    def _send(self) -> None:
        self._inflight.send(self._connection.send, time.monotonic(), self._window)

    def _header(self, checkpoint: Checkpoint) -> str:
        return StoredCheckpoint(self._claim.writer, checkpoint.position, checkpoint.state).header

    def _settle(self, most: int) -> None:
        """Return once at most so many batches are under way."""
        stopping_since = 0.0
        while True:
            self._wake.clear()
            self._take_answers()
            room = len(self._inflight) <= most
            if room and not self._connection.connected and self._trouble is None:
                return
            if self._trouble is not None or self._in_doubt():
                self._recover()
                continue
            if room:
                return
            self._wake.wait(_LOOK_EVERY)
            if self._patience.stopping:
                stopping_since = stopping_since or time.monotonic()
                if time.monotonic() - stopping_since > _LAST_WAIT:
                    raise self._patience.stopped("no answer")

    def _answered(self, message: Incoming) -> None:
        self._answers.append(message)
        self._wake.set()

    def _take_answers(self) -> None:
        while self._answers:
            subject, _, header, payload = self._answers.popleft()
            name = subject.rpartition(b".")[2].decode()
            if not self._inflight.has(name):
                continue
            ack = None if header and status(header) else api.decode_ack(payload)
            if ack is not None and ack.error is not None:
                self._trouble = ack.error
                return
            if ack is None or not self._inflight.acknowledge(name, ack.seq):
                self._trouble = _NO_ANSWER
                return
            self._patience.went_well()
            self._window, self._doubted = _BATCHES_UNDER_WAY, False
            self._send()

    def _in_doubt(self) -> bool:
        if not self._inflight:
            return False
        if self._losses != self._connection.losses:
            return True
        return time.monotonic() - self._inflight.batches[0].sent > _ANSWER_WITHIN

    def _recover(self) -> None:
        """Find out what is stored, and send the rest again."""
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            self._judge(trouble)
        else:
            since = self._inflight.batches[0].sent
            self._connection.check_allowed(f"CDC.{self._claim.source}.", since)
        self._patience.repeat(self._resynchronise)

    def _judge(self, refusal: api.Refusal) -> None:
        """Wait, complain or give up, as the server's words demand."""
        reason = f"{refusal.description} ({refusal.err_code})"
        kind = classify(refusal)
        if kind is Kind.FOR_GOOD:
            raise ConfigError(
                "jetstream.refused",
                f"the stream's configuration no longer allows what we send: {reason}",
                where=self._claim.stream,
                cure="undo that change of the stream's configuration",
            )
        if kind is Kind.OVERTAKEN:
            # Mostly the echo of another failure; it costs a pause only when it repeats itself.
            if not self._doubted:
                self._doubted = True
                return
        elif kind is Kind.NO_ROOM:
            # One batch is enough to find out whether there is room again.
            self._window = 1
            self._patience.complain(
                "the stream is full, waiting until there is room: raise max_bytes, or purge what "
                "every sink has delivered",
                reason,
            )
        else:
            self._patience.complain("the stream does not take messages, trying again", reason)
        self._patience.wait(reason, woken=False)

    def _resynchronise(self) -> None:
        losses = self._connection.losses
        end = end_of_own_stream(self._connection, self._claim, self._inflight.stored)
        if not self._inflight.drop_stored(end):
            raise GapError(
                "jetstream.foreign_writer",
                f"the stream ends at sequence {end}, in the middle of a batch",
                where=self._claim.stream,
            )
        self._inflight.rename()
        self._losses = losses
        self._send()

    def _keep(self) -> None:
        while not self._closed.wait(self._claim.checkpoint_every / 8):
            try:
                self.tick()
            except WaxtapError as error:
                self._failure = error
                return

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
