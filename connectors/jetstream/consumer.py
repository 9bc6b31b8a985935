"""Reads a share of a stream, in stream order, behind the offset that the target holds.

The consumer on the server is only a cursor: it is made at each start behind the stored offset, and
again after every doubt behind the last message handed out, under a name that holds the claim's
epoch. Nothing depends on what the server believes was acknowledged; acknowledgements follow the
target's commits and serve monitoring.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import structlog

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Delivered
from connectors.contracts.sink import Batch, Share
from connectors.errors import GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.consumers import owner
from connectors.jetstream.expiry import check_expired, check_identity
from connectors.jetstream.oversize import resolve
from connectors.jetstream.pull import HEARTBEAT, PullWindow, Status, acknowledgement
from connectors.jetstream.schemas import SchemaStore
from connectors.jetstream.stored import parse_headers, sequences
from connectors.jetstream.stream import checkpoint_subject, refuse_truncated, source_name
from connectors.jetstream.topics import filter_subjects
from connectors.subjects import covers, stored_upto
from connectors.wrapping import wrapped

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nats.aio.subscription import Subscription

    from connectors.contracts.sink import Claim
    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.wire import Incoming

log = structlog.get_logger()

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_SILENCE = 3 * HEARTBEAT
_LOOK_EVERY = 5.0
_ACK_WAIT = 24 * 3600 * 1_000_000_000
_FORGOTTEN_AFTER = 24 * 3600 * 1_000_000_000
# Behind every sequence that a stream can have.
_NEVER = 1 << 63


def share(nats: NatsSpec, sink: str, stream: str, topics: Sequence[str]) -> Share | None:
    """What a sink reads of a stream; None while the stream does not exist.

    Raises:
        ConfigError: A topic is not well-formed.
        RetryableError: NATS does not answer.
    """
    subjects = filter_subjects(source_name(stream), topics)
    with connect(nats) as connection:
        info = api.stream_info(connection, stream)
    return Share(sink, stream, info.created, subjects) if info else None


class Consumer:
    """Reads the share of a claim. Used by one thread at a time.

    Args:
        nats: Where the stream is.
        claim: What to read, and behind which offsets.
        accept: Losses that the owner accepts, by the tokens that the errors named.
        whole: Look at every message of the stream, so that `Batch.complete` is known as soon as it
            can be, whatever topic a transaction ends in.

    Raises:
        GapError: What follows the offsets is gone from the stream, or the stream is another one.
        RetryableError: NATS does not answer.
        ConfigError: We are not allowed to read it.
    """

    def __init__(
        self,
        nats: NatsSpec,
        claim: Claim,
        accept: Collection[str] = (),
        *,
        whole: bool = False,
    ) -> None:
        self._claim, self._accept, self._whole = claim, accept, whole
        self._stream = claim.share.stream
        self._offsets = claim.offsets
        # Up to here everything was handed out; `_upto` was told to the reader's caller.
        self._seen = self._upto = min(claim.offsets[name] for name in claim.share.subjects)
        self._skip_until = max(self._offsets.values())
        self._transaction, self._complete = "", 0
        source = source_name(self._stream)
        self._marker = checkpoint_subject(source).encode()
        self._filters = filter_subjects(source, ["*"]) if whole else claim.share.subjects
        self._subjects: dict[bytes, tuple[str, int]] = {}
        self._incoming: deque[Incoming] = deque()
        self._unconfirmed: deque[tuple[int, bytes]] = deque()
        self._subscription: Subscription | None = None
        self._name = ""
        self._made = 0
        self._expected = 1
        self._lost = self._closed = False
        self._retry_at, self._pause = 0.0, _FIRST_PAUSE
        self._heard = self._looked = time.monotonic()
        self._look_every = _LOOK_EVERY
        self._connection = connect(nats)
        self._schemas = SchemaStore(self._connection)
        self._losses = self._connection.losses
        try:
            self._delete_older()
            self._make()
        except BaseException:
            self._connection.release()
            raise

    def read(self) -> Batch | None:
        """The next messages, up to 1000; None when there is nothing now. Does not wait.

        A batch without changes tells that nothing for this share lies up to its `upto`.

        Raises:
            GapError: Messages expired unread, or the stream was truncated or replaced.
            ConfigError: We are no longer allowed to read it.
        """
        if not self._ready():
            return None
        changes: list[Delivered] = []
        try:
            if self._incoming:
                self._heard = time.monotonic()
                self._take(changes)
            self._refill()
            self._look()
        except RetryableError as error:
            self._later(str(error))
        if self._seen == self._upto:
            return None
        self._upto = self._seen
        if self._whole and not self._transaction:
            self._complete = self._seen  # nothing of any topic lies in between
        return Batch(self._claim, changes, self._upto, self._complete)

    def confirm(self, sequence: int) -> None:
        """Acknowledge everything up to `sequence`: the target holds it."""
        reply = b""
        while self._unconfirmed and self._unconfirmed[0][0] <= sequence:
            reply = self._unconfirmed.popleft()[1]
        if reply:
            self._connection.send(acknowledgement(reply))

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        if self._closed:
            return
        self._closed = True
        # There is none when making the consumer again has failed.
        if self._subscription is not None:
            self._connection.unsubscribe(self._subscription)
        self._connection.release()

    def _take(self, changes: list[Delivered]) -> None:
        """Move messages from the queue into `changes`."""
        incoming, window = self._incoming, self._window
        add, pop = changes.append, incoming.popleft
        known, marker, seen, last = self._subjects, self._marker, self._seen, b""
        current, complete = self._transaction, self._complete
        room = CHUNK_BYTES
        digest, table, own = "", None, self._claim.share.sink
        try:
            while incoming and len(changes) < CHUNK_CHANGES and room > 0:
                message = incoming[0]
                subject, reply, header, payload = message
                if header[8:9] == b" ":
                    pop()
                    if window.status(message) is Status.LOST:
                        self._lost = True
                        return
                    continue
                sequence, consumer_sequence = sequences(reply)
                if consumer_sequence != self._expected:
                    self._lost = True
                    return
                if sequence > seen:
                    entry = known.get(subject) or self._subject(subject)
                    headers = parse_headers(header)
                    if headers is None:
                        if subject != marker:
                            raise _foreign(entry[0], sequence)
                    else:
                        if headers.last or not headers.transaction:
                            current, complete = "", sequence
                        elif headers.transaction != current:
                            # A transaction lies together: the one before it has ended.
                            current, complete = headers.transaction, max(complete, seen)
                    if headers is not None and sequence > entry[1] and headers.sink in ("", own):
                        (
                            position,
                            transaction,
                            final,
                            schema,
                            key,
                            missing,
                            json_nulls,
                            failed,
                            encoding,
                            object_,
                            op,
                            _,
                        ) = headers
                        if schema != digest:
                            table = self._schemas.get(schema) if schema else None
                            digest = schema
                        if encoding or object_:
                            payload = resolve(self._connection, encoding, object_, payload)
                        if op:
                            payload = wrapped(op, key, payload)
                        room -= len(payload)
                        add(
                            Delivered(
                                sequence,
                                entry[0],
                                position,
                                key,
                                table,
                                transaction,
                                final,
                                payload,
                                missing,
                                json_nulls,
                                failed,
                            )
                        )
                    seen, last = sequence, reply
                # Only now: a message whose shape could not be read at once stays in the queue.
                pop()
                self._expected += 1
                window.asked -= 1
        finally:
            self._seen, self._transaction, self._complete = seen, current, complete
            if last:
                self._unconfirmed.append((seen, last))

    def _subject(self, subject: bytes) -> tuple[str, int]:
        """A subject as text, and the sequence up to which it does not concern the target."""
        text = subject.decode()
        offset = 0
        if self._seen < self._skip_until:
            offset = stored_upto(self._offsets, text)
        if self._whole and not any(covers(own, text) for own in self._claim.share.subjects):
            offset = _NEVER
        entry = self._subjects[subject] = (text, offset)
        return entry

    def _refill(self) -> None:
        frame = self._window.request()
        if frame:
            self._connection.send(frame)

    def _look(self) -> None:
        """Every few seconds: has anything expired unread, and does anything follow at all?"""
        now = time.monotonic()
        if now - self._looked < self._look_every:
            return
        self._looked = now
        end = self._check_stream().state.last_seq
        if end <= self._seen or self._has_messages():
            return
        for subject in self._filters:
            if api.next_message(self._connection, self._stream, self._seen + 1, subject):
                return
        if not self._has_messages():
            self._seen = end

    def _has_messages(self) -> bool:
        """Whether messages wait to be taken; heartbeats, which beat in time with `_look`, are none.

        A copy, since the I/O thread appends meanwhile.
        """
        return any(header[8:9] != b" " for _, _, header, _ in self._incoming.copy())

    def _check_stream(self) -> api.StreamInfo:
        info = api.stream_info(self._connection, self._stream)
        info = check_identity(self._claim.share, info)
        if max(self._seen, self._skip_until) > info.state.last_seq:
            known = max(self._seen, self._skip_until)
            # Who accepts that must claim anew (`shortened`): the target's offsets go back, too.
            refuse_truncated(self._stream, info.state.last_seq, known, ())
        if check_expired(self._stream, self._seen, info, self._accept):
            self._seen = info.state.first_seq - 1
        return info

    def _ready(self) -> bool:
        """Whether the consumer is sound; makes it again, when it is time to, if it is not."""
        silent = not self._incoming and time.monotonic() - self._heard > _SILENCE
        if not (self._lost or silent or self._losses != self._connection.losses):
            return True
        if not self._connection.connected or time.monotonic() < self._retry_at:
            return False
        try:
            self._make()
        except RetryableError as error:
            self._later(str(error))
            return False
        self._pause = _FIRST_PAUSE
        return True

    def _later(self, reason: str) -> None:
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        log.debug("reading again later", stream=self._stream, reason=reason)

    def _make(self) -> None:
        """Make a consumer behind the last message handed out, under a name of its own."""
        losses = self._connection.losses
        if self._subscription is not None:
            self._connection.unsubscribe(self._subscription)
            self._subscription = None
        if self._name:
            api.delete_consumer(self._connection, self._stream, self._name)
        info = self._check_stream()
        self._made += 1
        base = f"{self._claim.share.sink}-{self._claim.epoch}"
        self._name = base if self._made == 1 else f"{base}_{self._made}"
        inbox = self._connection.inbox()
        # A new deque: whatever is still on its way goes to the old one.
        self._incoming = deque()
        self._unconfirmed.clear()
        self._expected = 1
        self._window = PullWindow(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}",
            inbox,
            self._connection.max_payload,
        )
        self._create()
        # What expired between the first look and now would be skipped without a word.
        self._check_stream()
        self._subscription = self._connection.subscribe(inbox, self._incoming.append)
        max_age = info.config.get("max_age")
        if isinstance(max_age, int) and max_age:
            self._look_every = min(_LOOK_EVERY, max_age / 8e9)
        self._lost, self._losses = False, losses
        self._heard = time.monotonic()
        self._refill()

    def _create(self) -> None:
        config = {
            "name": self._name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._seen + 1,
            "ack_policy": "all",
            "ack_wait": _ACK_WAIT,
            "max_ack_pending": -1,
            "inactive_threshold": _FORGOTTEN_AFTER,
            "filter_subjects": list(self._filters),
            # The truth lies in the target; a lost cursor is made again.
            "mem_storage": True,
            "num_replicas": 1,
        }
        try:
            api.create_consumer(self._connection, self._stream, config)
        except api.ApiError as error:
            raise RetryableError(
                "jetstream.consumer_refused", str(error), where=f"{self._stream} > {self._name}"
            ) from error

    def _delete_older(self) -> None:
        """Delete the consumers of earlier claims; those of later ones stay."""
        for name in api.consumer_names(self._connection, self._stream):
            found = owner(name)
            if found and found.sink == self._claim.share.sink and found.epoch <= self._claim.epoch:
                api.delete_consumer(self._connection, self._stream, name)


def _foreign(subject: str, sequence: int) -> GapError:
    return GapError(
        "jetstream.foreign_message",
        f"message {sequence} was not written by Waxtap: it has no position",
        where=subject,
        cure="take the right to publish to CDC.> from the other writer",
    )
