"""Stores requests in an inbox: what arrives while a batch is under way goes into the next one.

One fsync serves a whole batch, so a busy endpoint is not limited by the disk. A batch is stored
whole or not at all. Where JetStream knows an identity in it already, it refuses all of it; then its
entries are sent once more, each by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import chain, count, repeat
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES
from connectors.errors import RetryableError
from connectors.jetstream import api
from connectors.jetstream.inbox_frames import (
    HEADERS_ROOM,
    REQUEST_ROOM,
    Entry,
    encode_singly,
    encode_together,
    entry,
)
from connectors.jetstream.stored import status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.replies import Reply

log = structlog.get_logger()

# While one batch is on its way to the disk, the next one is encoded and sent.
_BATCHES_UNDER_WAY = 2
# So much may wait; what comes beyond is refused.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_WAITING = 20_000
_ANSWER_WITHIN = 5.0
_READY_FOR = 1.0


def max_body(connection: Connection) -> int:
    """The largest body in bytes that an inbox on this server takes."""
    return connection.max_payload - HEADERS_ROOM


class JetStreamInboxWriter:
    """Implements `contracts.InboxWriter`.

    Args:
        connection: Where to; released by `close`.
        stream: The inbox's stream.
        subject: Where its messages lie.
        bell: Where its reader is told up to which sequence there are messages.
        created: When the stream was made (RFC 3339).
    """

    def __init__(
        self, connection: Connection, stream: str, subject: str, bell: str, created: str
    ) -> None:
        self._connection, self._created = connection, created
        self._stream, self._subject, self._bell = stream, subject, bell
        self._waiting: deque[tuple[Entry, asyncio.Future[bool]]] = deque()
        self._held = self._size = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._run, self._numbers = uuid4().hex[:16], count(1)
        self._checked, self._fine = 0.0, False
        self._complained = self._closed = False

    @property
    def max_body(self) -> int:
        """The largest body in bytes that can be stored."""
        return max_body(self._connection)

    @property
    def max_headers(self) -> int:
        """The most bytes that headers may take as JSON."""
        return REQUEST_ROOM

    @property
    def created(self) -> str:
        """When the inbox was made."""
        return self._created

    async def store(self, body: bytes, headers: Mapping[str, str], identity: str = "") -> bool:
        """Return once the message is stored for good; see `contracts.InboxWriter`."""
        if not self._connection.connected:
            raise self._trouble("jetstream.unreachable", "no connection to NATS")
        made = entry(body, headers, identity)
        size = made.size
        if self._size + size > _MOST_BYTES or self._held >= _MOST_WAITING:
            raise self._trouble("jetstream.inbox_busy", "too much waits to be stored")
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._held += 1
        self._size += size
        self._waiting.append((made, stored))
        try:
            self._send_next()
            return await stored
        finally:
            self._held -= 1
            self._size -= size

    async def ready(self) -> bool:
        """Whether the inbox answers at this moment; it is asked at most once a second."""
        now = time.monotonic()
        if now - self._checked > _READY_FOR:
            self._checked, self._fine = now, await self._answers()
        return self._fine and self._connection.connected

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        if not self._closed:
            self._closed = True
            self._connection.release()

    def _send_next(self) -> None:
        while self._waiting and len(self._sending) < _BATCHES_UNDER_WAY:
            batch: list[tuple[Entry, asyncio.Future[bool]]] = []
            size = 0
            while self._waiting and len(batch) < CHUNK_CHANGES and size < CHUNK_BYTES:
                made, stored = self._waiting.popleft()
                if stored.done():  # nobody waits for it any more
                    continue
                batch.append((made, stored))
                size += made.size
            if not batch:
                return
            task = asyncio.get_running_loop().create_task(self._store(batch))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._send_next()

    async def _store(self, batch: Sequence[tuple[Entry, asyncio.Future[bool]]]) -> None:
        outcomes: Sequence[bool | RetryableError] = ()
        waiting = [stored for _, stored in batch]
        try:
            outcomes = await self._together([made for made, _ in batch])
        except TimeoutError:
            self._complain(f"no answer within {_ANSWER_WITHIN:g} s")
            # Whatever waits behind it would wait as long, and in vain.
            waiting += [stored for _, stored in self._waiting]
            self._waiting.clear()
        finally:
            unknown = self._trouble("jetstream.timeout", "no answer from NATS")
            for stored, outcome in zip(waiting, chain(outcomes, repeat(unknown)), strict=False):
                _tell(stored, outcome)

    async def _together(self, entries: Sequence[Entry]) -> Sequence[bool | RetryableError]:
        batch = f"{self._run}{next(self._numbers):016x}"
        (reply,) = await self._exchange(
            lambda replies: encode_together(self._subject, entries, batch, replies[0]), 1
        )
        ack = _ack(reply)
        if ack.error is not None and ack.error.err_code == api.DUPLICATE_IN_BATCH:
            return await self._singly(entries)
        self._ring([ack])
        return [self._outcome(ack)] * len(entries)

    async def _singly(self, entries: Sequence[Entry]) -> Sequence[bool | RetryableError]:
        replies = await self._exchange(
            lambda subjects: encode_singly(self._subject, entries, subjects), len(entries)
        )
        acks = [_ack(reply) for reply in replies]
        self._ring(acks)
        return [self._outcome(ack) for ack in acks]

    async def _exchange(
        self, encode: Callable[[Sequence[str]], bytes], answers: int
    ) -> Sequence[Reply]:
        """Raises TimeoutError: what was sent may have been stored or not."""
        return await asyncio.wrap_future(self._connection.exchange(encode, answers, _ANSWER_WITHIN))

    def _outcome(self, ack: api.PubAck) -> bool | RetryableError:
        if ack.error is not None:
            reason = f"{ack.error.description} ({ack.error.err_code})"
            self._complain(reason)
            return self._trouble("jetstream.not_stored", reason)
        if self._complained:
            self._complained = False
            log.info("the inbox takes requests again", stream=self._stream)
        return not ack.duplicate

    def _ring(self, acks: Sequence[api.PubAck]) -> None:
        """Tell the reader up to which sequence there are messages."""
        end = b"%d" % max(ack.seq for ack in acks)
        self._connection.send(b"PUB %b %d\r\n%b\r\n" % (self._bell.encode("ascii"), len(end), end))

    def _complain(self, reason: str) -> None:
        """Warn, once until things go well again."""
        if not self._complained:
            self._complained = True
            log.warning("the inbox does not take requests", stream=self._stream, reason=reason)

    async def _answers(self) -> bool:
        subject = f"$JS.API.STREAM.INFO.{self._stream}"
        asked = self._connection.exchange(
            lambda replies: f"PUB {subject} {replies[0]} 0\r\n\r\n".encode("ascii"), 1, _READY_FOR
        )
        try:
            (reply,) = await asyncio.wrap_future(asked)
        except TimeoutError:
            return False
        return not (reply.header and status(reply.header)) and b'"error"' not in reply.payload[:200]

    def _trouble(self, code: str, reason: str) -> RetryableError:
        return RetryableError(code, reason, where=self._stream)


def _ack(reply: Reply) -> api.PubAck:
    if reply.header and status(reply.header):
        return api.PubAck(api.Refusal(503, 0, "there is no such stream, or it has no leader"))
    return api.decode_ack(reply.payload)


def _tell(stored: asyncio.Future[bool], outcome: bool | RetryableError) -> None:
    if stored.done():
        return
    if isinstance(outcome, RetryableError):
        stored.set_exception(outcome)
    else:
        stored.set_result(outcome)
