"""Times and durations as the API has them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(nanoseconds: int) -> Timestamp | None:
    """A moment, in nanoseconds since 1970; None for 0: there is none."""
    if not nanoseconds:
        return None
    moment = Timestamp()
    moment.FromNanoseconds(nanoseconds)
    return moment


def duration(nanoseconds: int) -> Duration:
    """A length of time."""
    found = Duration()
    found.FromNanoseconds(nanoseconds)
    return found
