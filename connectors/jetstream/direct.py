"""Reads stored messages in batches, without a consumer (ADR-31, "Direct Get", and its batches).

`$JS.API.DIRECT.GET.<stream>` takes `{"seq": s, "next_by_subj": f, "batch": n}` and answers with up
to n messages at or behind s whose subject matches, then with a status `204 EOB`, or with `404` when
there is none. The server adds to each message's headers `Nats-Subject`, `Nats-Sequence`,
`Nats-Time-Stamp` and `Nats-Num-Pending`: how many messages that match come behind it. The stream
must have `allow_direct`. Replicas answer, too, and may lag a moment behind their leader.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.errors import RetryableError
from connectors.jetstream.stored import status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.wire import Incoming

_PATIENCE = 10.0
_LOOK_EVERY = 0.25
_NOTHING, _NOBODY = 404, 503


class Raw(NamedTuple):
    """A message as it came: its header block, those of the server at its end, and its data."""

    header: bytes
    payload: bytes

    @property
    def subject(self) -> str:
        """Where it lies."""
        return _field(self.header, b"\r\nNats-Subject: ").decode()

    @property
    def sequence(self) -> int:
        """Its place in the stream."""
        return int(_field(self.header, b"\r\nNats-Sequence: "))

    @property
    def time(self) -> str:
        """When it was stored (RFC 3339, nanoseconds)."""
        return _field(self.header, b"\r\nNats-Time-Stamp: ").decode()

    @property
    def pending(self) -> int:
        """How many messages that match the request come behind it."""
        return int(_field(self.header, b"\r\nNats-Num-Pending: "))


class Pending:
    """A request under way."""

    def __init__(self, where: str, connection: Connection) -> None:
        self._where, self._connection = where, connection
        self._losses = connection.losses
        self._messages: list[Raw] = []
        self._status = 0
        self._done = threading.Event()

    def take(self, message: Incoming) -> None:
        """Called in the I/O thread for each answer."""
        header = message[2]
        if header[8:9] == b" ":
            self._status = status(header)
            self._done.set()
            return
        self._messages.append(Raw(header, message[3]))

    def result(self) -> list[Raw]:
        """The messages, in the stream's order; empty: none matches.

        Raises:
            RetryableError: NATS does not answer, or the connection was lost.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._done.wait(_LOOK_EVERY):
            if self._connection.losses != self._losses or time.monotonic() > deadline:
                raise RetryableError(
                    "jetstream.timeout", "stored messages could not be read", where=self._where
                )
        if self._status == _NOBODY:
            raise RetryableError(
                "jetstream.no_responders",
                "nobody answers there: the stream is gone, or takes no direct reads",
                where=self._where,
            )
        if self._status not in (0, _NOTHING, 204):
            raise RetryableError(
                "jetstream.unread",
                f"the server answers with status {self._status}",
                where=self._where,
            )
        return self._messages


class DirectGets:
    """Makes such requests over a connection, many at once. Usable from any thread.

    Args:
        connection: Stays open as long as this is used.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.inbox()
        self._lock = threading.Lock()
        self._requests = 0
        self._waiting: dict[bytes, Pending] = {}
        self._subscription = connection.subscribe(f"{self._inbox}.*", self._take)

    def close(self) -> None:
        """End the subscription. Never raises."""
        self._connection.unsubscribe(self._subscription)

    def start(self, stream: str, body: Mapping[str, object]) -> Pending:
        """Send a request; its answers come in while others are made."""
        with self._lock:
            self._requests += 1
            reply = f"{self._inbox}.{self._requests}".encode()
        pending = Pending(f"$JS.API.DIRECT.GET.{stream}", self._connection)
        self._waiting[reply] = pending
        data = msgspec.json.encode(body)
        self._connection.send(
            b"PUB $JS.API.DIRECT.GET.%b %b %d\r\n%b\r\n" % (stream.encode(), reply, len(data), data)
        )
        return pending

    def get(self, stream: str, body: Mapping[str, object]) -> list[Raw]:
        """Send a request and wait for its answers. Raises as `Pending.result`."""
        return self.start(stream, body).result()

    def _take(self, message: Incoming) -> None:
        pending = self._waiting.get(message[0])
        if pending is None:
            return
        if message[2][8:9] == b" ":
            del self._waiting[message[0]]
        pending.take(message)


def _field(header: bytes, name: bytes) -> bytes:
    """A header of the server's; these stand behind those of the message."""
    start = header.rfind(name) + len(name)
    return header[start : header.find(b"\r\n", start)]
