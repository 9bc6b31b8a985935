"""What of a Debezium envelope decides how a change is applied."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

NULL = b"null"


class Envelope(msgspec.Struct):
    """The operation and the rows, which stay the bytes they are."""

    op: str
    before: msgspec.Raw = msgspec.Raw(NULL)
    after: msgspec.Raw = msgspec.Raw(NULL)


class Origin(msgspec.Struct, frozen=True):
    """What the source says of a change."""

    ts_ms: int = 0


class Timed(Envelope):
    """An envelope of which the time of the change is wanted, too."""

    source: Origin = Origin()
    ts_ms: int = 0


def committed_at(envelope: Timed) -> str:
    """When the change was committed in its source, as PostgreSQL reads it."""
    milliseconds = envelope.source.ts_ms or envelope.ts_ms
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
