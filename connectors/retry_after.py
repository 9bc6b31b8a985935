"""What a server asks for by `Retry-After` (RFC 9110, 10.2.3). Free of I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds_asked(text: str, now: datetime) -> float | None:
    """Seconds that a `Retry-After` asks for; None: nothing that is understood.

    Args:
        text: A number of seconds, or an HTTP date.
        now: The time, aware.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until = http_date(text)
    return None if until is None else max(0.0, (until - now).total_seconds())


def http_date(text: str) -> datetime | None:
    """The moment that a header tells, aware; None: it tells none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        # Also a year, a day or a zone of many digits.
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
