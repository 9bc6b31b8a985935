"""Times as NATS writes them (RFC 3339, up to nanoseconds), as nanoseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime

_SECOND = 1_000_000_000
# Behind what JetStream takes as a time: 64 bits of nanoseconds.
END = 1 << 63


def to_nanoseconds(text: str) -> int:
    """Read a time such as `2026-01-02T03:04:05.678901234Z`.

    Raises:
        ValueError: It is none.
    """
    whole, point, rest = text.partition(".")
    digits = ""
    if point:
        count = next((i for i, each in enumerate(rest) if not each.isdigit()), len(rest))
        digits, zone = rest[:count], rest[count:]
        whole += zone
    moment = datetime.fromisoformat(whole)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return round(moment.timestamp()) * _SECOND + int(digits.ljust(9, "0")[:9])


def from_nanoseconds(moment: int) -> str:
    """Write a time as `to_nanoseconds` reads it."""
    seconds, rest = divmod(moment, _SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}Z"
