"""What an endpoint's answer means, free of I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from connectors.retry_after import http_date, seconds_asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# An endpoint that asks for a longer pause is asked again after this many seconds.
LONGEST_PAUSE = 3600.0
_PATIENT = frozenset({429, 503})


class Meaning(Enum):
    """How a sender goes on after an answer."""

    DONE = "the endpoint has taken it"
    AGAIN = "it may be taken later"
    REFUSED = "it will not be taken as it is"
    GONE = "the endpoint wants nothing any more"
    ELSEWHERE = "the endpoint is somewhere else"
    STRANGER = "the endpoint does not know our credentials"


@dataclass(frozen=True, slots=True)
class Answer:
    """An endpoint's answer.

    Attributes:
        status: The HTTP status.
        meaning: How to go on.
        pause: Seconds in which the endpoint wants to hear nothing; None: it does not say.
        location: Where it says to be, of a redirect.
        excerpt: The beginning of a body that says why not, on one line.
    """

    status: int
    meaning: Meaning
    pause: float | None = None
    location: str = ""
    excerpt: str = ""


def understand(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Answer:
    """Tell what an answer means.

    Args:
        status: The HTTP status.
        headers: With names in small letters.
        body: Its beginning.
        now: The time, with its zone.
    """
    meaning = _meaning(status)
    if meaning is Meaning.DONE:
        return Answer(status, meaning)
    pause = retry_after(headers, now) if status in _PATIENT else None
    readable = "content-encoding" not in headers
    text = body.decode("utf-8", "replace") if readable else ""
    excerpt = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
    location = headers.get("location", "") if meaning is Meaning.ELSEWHERE else ""
    return Answer(status, meaning, pause, location, excerpt)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds that `Retry-After` asks for (RFC 9110, 10.2.3); None without a valid one.

    A date is compared with the endpoint's own clock where it tells that.
    """
    since = http_date(headers.get("date", "")) or now
    asked = seconds_asked(headers.get("retry-after", ""), since)
    return None if asked is None else min(asked, LONGEST_PAUSE)


def _meaning(status: int) -> Meaning:
    if 200 <= status < 300:
        return Meaning.DONE
    if 300 <= status < 400:
        return Meaning.ELSEWHERE
    if status == 410:
        return Meaning.GONE
    if status in {401, 407}:
        return Meaning.STRANGER
    if status in {408, 429} or status >= 500 or status < 200:
        return Meaning.AGAIN
    return Meaning.REFUSED
