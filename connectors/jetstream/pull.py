"""The pull requests of a consumer, free of I/O: how much is asked for, and what statuses mean."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from connectors.jetstream.frames import read_headers
from connectors.jetstream.stored import status

if TYPE_CHECKING:
    from connectors.jetstream.wire import Incoming

# Two chunks: one is under way while the other is worked on.
WINDOW = 2000
_REFILL = 500
_BYTES = 4 * 1024 * 1024
# Room for subject and reply subject beside a message of the largest size.
_BESIDE = 64 * 1024
_EXPIRES = 30.0
HEARTBEAT = 5.0

_IDLE = 100
_ENDED = (408, 409)


class Status(Enum):
    """What a status message means for the consumer."""

    ALIVE = "goes on"
    LOST = "must be made again"


class PullWindow:
    """Counts what was asked for and has not been taken yet.

    What lies in memory or is under way is bounded: at most `WINDOW` messages, and a few times
    4 MiB (or the largest message, if that is more).

    Args:
        subject: Where pull requests of the consumer go.
        inbox: Where messages are to come.
        max_payload: The server's largest message.
    """

    def __init__(self, subject: str, inbox: str, max_payload: int) -> None:
        self._subject, self._inbox = subject, inbox
        self._bytes = max(_BYTES, max_payload + _BESIDE)
        self.asked = 0

    def request(self) -> bytes:
        """The frame that asks for more; empty while enough is under way."""
        missing = WINDOW - self.asked
        if missing < _REFILL:
            return b""
        self.asked += missing
        body = msgspec.json.encode(
            {
                "batch": missing,
                "max_bytes": self._bytes,
                "expires": int(_EXPIRES * 1e9),
                "idle_heartbeat": int(HEARTBEAT * 1e9),
            }
        )
        return b"PUB %b %b %d\r\n%b\r\n" % (
            self._subject.encode(),
            self._inbox.encode(),
            len(body),
            body,
        )

    def status(self, message: Incoming) -> Status:
        """Take a status message: the request ended (`408`, `409`), or nothing is there (`100`)."""
        code = status(message[2])
        if code == _IDLE:
            return Status.ALIVE
        pending = read_headers(message[2]).get("Nats-Pending-Messages")
        if code in _ENDED and pending is not None:
            self.asked -= int(pending)
            return Status.ALIVE
        return Status.LOST


def acknowledgement(reply: bytes) -> bytes:
    """The frame that acknowledges a message, and under `ack_policy: all` those before it."""
    return b"PUB %b 4\r\n+ACK\r\n" % reply
