"""Reads an inbox by direct gets, each for the messages behind the last one; nothing is awaited.

A writer rings a bell behind each stored batch. Without one the reader asks every second: a bell may
be lost. Sequences of an inbox have no gaps, because nothing is ever deleted from its middle.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES
from connectors.contracts.inbox import Arrived, InboxMark
from connectors.jetstream.frames import read_headers
from connectors.jetstream.inbox_check import examine, moment, questions
from connectors.jetstream.inbox_frames import read_got, read_request
from connectors.jetstream.stored import status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.replies import Reply
    from connectors.jetstream.wire import Incoming

_ANSWER_WITHIN = 5.0
_ASK_EVERY = 1.0
_CHECK_EVERY = 5.0
# For an answer, which mostly comes at once.
_WAIT = 0.005
# Before the same question is asked again.
_PAUSE = 0.002
_AGAIN = 0.1
_END, _UNAVAILABLE = 204, 503


class JetStreamInboxReader:
    """Implements `contracts.InboxReader`.

    Args:
        connection: Where the inbox is; released by `close`.
        stream: The inbox's stream.
        bell: Where writers ring.
        mark: Behind which place to read.
        newer_than: Messages that were stored at this time (RFC 3339) or before are left out; empty:
            none is.

    Raises:
        RetryableError: There is no connection.
    """

    def __init__(
        self, connection: Connection, stream: str, bell: str, mark: InboxMark, newer_than: str = ""
    ) -> None:
        self._connection, self._stream, self._mark = connection, stream, mark
        self._newer_than = moment(newer_than)
        self._incoming: deque[Incoming] = deque()
        self._rung = self._round = self._purged = 0
        self._asked_at = self._checked_at = self._sent_at = 0.0
        self._asking = self._more = False
        self._losses = connection.losses
        self._check: Future[list[Reply]] | None = None
        self._examined = mark
        self._certain = True
        self._checked_at = time.monotonic()
        self._came = threading.Event()
        self._inbox = connection.inbox()
        self._subscriptions = [connection.subscribe(f"{self._inbox}.*", self._answered)]
        self._subscriptions.append(connection.subscribe(bell, self._ring))

    def read(self) -> Sequence[Arrived]:
        """The next messages; see `contracts.InboxReader`."""
        if not self._sure():
            return ()
        if not self._asking and self._due():
            self._ask()
        if self._asking and not self._incoming:
            self._came.wait(_WAIT)
        found = self._take()
        if self._asking and time.monotonic() - self._asked_at > _ANSWER_WITHIN:
            self._asking = False
        return found

    def purge(self, sequence: int) -> None:
        """Let the inbox drop what lies before this sequence."""
        if sequence <= self._purged:
            return
        self._purged = sequence
        request = f'{{"seq":{sequence}}}'
        subject = f"$JS.API.STREAM.PURGE.{self._stream}"
        self._connection.exchange(
            lambda replies: f"PUB {subject} {replies[0]} {len(request)}\r\n{request}\r\n".encode(
                "ascii"
            ),
            1,
            _ANSWER_WITHIN,
        )

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        while self._subscriptions:
            self._connection.unsubscribe(self._subscriptions.pop())
            if not self._subscriptions:
                self._connection.release()

    def _answered(self, message: Incoming) -> None:
        self._incoming.append(message)
        if message[2][8:9] == b" ":
            self._came.set()

    def _ring(self, message: Incoming) -> None:
        if message[3].isdigit():
            self._rung = max(self._rung, int(message[3]))

    def _due(self) -> bool:
        """Whether there is something to ask for; without a sign of it, once a second."""
        if self._more:
            return True
        pause = _PAUSE if self._rung > self._mark.sequence else _ASK_EVERY
        return time.monotonic() - self._asked_at > pause

    def _ask(self) -> None:
        self._round += 1
        self._asking, self._more = True, False
        self._asked_at = time.monotonic()
        self._came.clear()
        body = msgspec.json.encode(
            {
                "seq": self._mark.sequence + 1,
                "batch": CHUNK_CHANGES,
                "max_bytes": max(CHUNK_BYTES // 2, self._connection.max_payload),
            }
        )
        self._connection.send(
            f"PUB $JS.API.DIRECT.GET.{self._stream} {self._inbox}.{self._round} {len(body)}\r\n"
            f"{body.decode()}\r\n".encode("ascii")
        )

    def _take(self) -> list[Arrived]:
        found: list[Arrived] = []
        incoming, wanted = self._incoming, b"%d" % self._round
        while incoming:
            subject, _, header, body = incoming.popleft()
            if subject.rpartition(b".")[2] != wanted or not self._asking:
                continue
            if code := status(header):
                # The end of the answer, or an error: there is nothing, or nobody.
                self._asking = False
                self._certain &= code != _UNAVAILABLE
                self._more = code == _END and read_headers(header).get("Nats-Num-Pending") != "0"
                continue
            sequence, stored, request = read_got(header)
            if sequence != self._mark.sequence + 1:
                # What lies before it is gone; the check tells how much.
                self._asking, self._certain = False, False
                break
            self._mark = InboxMark(self._mark.created, sequence, stored)
            if self._newer_than and moment(stored) <= self._newer_than:
                continue
            headers = read_request(request, f"{self._stream}: {sequence}")
            found.append(Arrived(self._mark, headers, body))
        return found

    def _sure(self) -> bool:
        """Whether the inbox is known to be the one that was read so far.

        It is looked at every few seconds, and after each doubt before anything more is read.
        """
        now = time.monotonic()
        if self._losses != self._connection.losses:
            self._losses = self._connection.losses
            self._certain, self._asking, self._check = False, False, None
        if self._check is None:
            if self._certain and now - self._checked_at < _CHECK_EVERY:
                return True
            if not self._connection.connected or now - self._sent_at < _AGAIN:
                return self._certain
            self._sent_at, self._examined = now, self._mark
            self._check = self._connection.exchange(
                questions(self._stream, self._mark), 2, _ANSWER_WITHIN
            )
        if not self._check.done():
            return self._certain
        check, self._check = self._check, None
        with suppress(TimeoutError):
            if examine(self._stream, self._examined, *check.result()):
                self._certain, self._checked_at = True, now
        return self._certain
