"""Times and durations as the API has them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from control.server.statuses import invalid

_FIRST, _LAST = -62_135_596_800, 253_402_300_799


def timestamp(nanoseconds: int) -> Timestamp | None:
    """A moment, in nanoseconds since 1970; None for 0: there is none."""
    if not nanoseconds:
        return None
    moment = Timestamp()
    moment.FromNanoseconds(nanoseconds)
    return moment


def moment(given: Timestamp, where: str) -> int:
    """A time of a request, in nanoseconds since 1970, which is negative before.

    Raises:
        ApiError: It lies outside the years 1 to 9999 (google.protobuf.Timestamp).
    """
    if not (_FIRST <= given.seconds <= _LAST and 0 <= given.nanos < 1_000_000_000):
        raise invalid("control.time", "a time lies in the years 1 to 9999", where=where)
    return given.ToNanoseconds()


def duration(nanoseconds: int) -> Duration:
    """A length of time."""
    found = Duration()
    found.FromNanoseconds(nanoseconds)
    return found
