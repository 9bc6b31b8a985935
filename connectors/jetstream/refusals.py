"""What a refused batch means for its writer."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.jetstream.api import Refusal

WRONG_LAST_SEQUENCE = 10071
WRONG_LAST_SEQUENCE_CONSTANT = 10164
STORE_FAILED = 10077


class Kind(Enum):
    """How a writer goes on after a refusal."""

    OVERTAKEN = "the stream does not end where the batch was to follow"
    NO_ROOM = "the stream, the account or the disk is full"
    FOR_GOOD = "it will not be accepted however often it is sent"
    PASSING = "anything else: it may be accepted later"


_KINDS = {
    WRONG_LAST_SEQUENCE: Kind.OVERTAKEN,
    WRONG_LAST_SEQUENCE_CONSTANT: Kind.OVERTAKEN,
    STORE_FAILED: Kind.NO_ROOM,
    10002: Kind.NO_ROOM,  # resource limits exceeded for account
    10023: Kind.NO_ROOM,  # insufficient resources
    10028: Kind.NO_ROOM,  # insufficient memory resources available
    10047: Kind.NO_ROOM,  # insufficient storage resources available
    10054: Kind.FOR_GOOD,  # message size exceeds maximum allowed
    10174: Kind.FOR_GOOD,  # atomic publish is disabled
}


def classify(refusal: Refusal) -> Kind:
    """What a refusal means; numbers are those of the server's errors.json."""
    return _KINDS.get(refusal.err_code, Kind.PASSING)
