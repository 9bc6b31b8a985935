"""The frames of the streaming replication protocol, free of I/O.

Format: PostgreSQL documentation, "Streaming Replication Protocol", messages inside CopyData. All
integers are big-endian, all times microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from connectors.errors import FatalError

# From the Unix epoch to PostgreSQL's, in microseconds.
EPOCH_US = 946_684_800_000_000

XLOG_HEADER_SIZE = 25
_XLOG = struct.Struct("!cQQq")
_KEEPALIVE = struct.Struct("!cQqB")
_STATUS = struct.Struct("!cQQQqB")


@dataclass(frozen=True, slots=True)
class XLogData:
    """`w`: a piece of the log, for `pgoutput` one logical replication message.

    Attributes:
        start: The message's LSN; 0 for Relation, Type and Origin messages.
        wal_end: The server's current end of the log.
        sent_at: Unix time in microseconds.
        payload: The logical replication message.
    """

    start: int
    wal_end: int
    sent_at: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Keepalive:
    """`k`: nothing to send.

    Attributes:
        wal_end: Everything before it that concerns this slot has been sent.
        sent_at: Unix time in microseconds.
        reply: True when the server wants a status update now.
    """

    wal_end: int
    sent_at: int
    reply: bool


def parse_frame(data: bytes | memoryview) -> XLogData | Keepalive:
    """Read the payload of one CopyData message.

    Raises:
        FatalError: `postgres.unknown_message` or `postgres.malformed_message`.
    """
    raw = bytes(data)
    kind = raw[:1]
    if kind == b"w" and len(raw) > XLOG_HEADER_SIZE:
        _, start, wal_end, sent = _XLOG.unpack_from(raw)
        return XLogData(start, wal_end, sent + EPOCH_US, raw[XLOG_HEADER_SIZE:])
    if kind == b"k" and len(raw) == _KEEPALIVE.size:
        _, wal_end, sent, reply = _KEEPALIVE.unpack(raw)
        return Keepalive(wal_end, sent + EPOCH_US, bool(reply))
    if kind in (b"w", b"k"):
        raise FatalError(
            "postgres.malformed_message",
            f"a replication frame {kind.decode()!r} of {len(raw)} bytes",
            cure="check the network path to the server",
        )
    raise FatalError(
        "postgres.unknown_message",
        f"a replication frame of unknown type {kind!r}",
        cure="use a server of a supported version",
    )


def standby_status(
    *, written: int, flushed: int, applied: int, now_us: int, reply: bool = False
) -> bytes:
    """`r`: tell the server how far we are; `flushed` is what the slot confirms.

    Args:
        written: LSN up to which the log was received.
        flushed: LSN up to which it is stored for good.
        applied: LSN up to which it is applied.
        now_us: Unix time in microseconds.
        reply: True to get a keepalive at once.
    """
    return _STATUS.pack(b"r", written, flushed, applied, now_us - EPOCH_US, reply)
