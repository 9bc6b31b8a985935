"""What the server's errors mean for a replication stream.

SQLSTATEs: PostgreSQL documentation, "PostgreSQL Error Codes".
"""

from __future__ import annotations

from connectors.errors import ConfigError, FatalError, GapError, RetryableError, WaxtapError

# Of these classes or states every error passes by itself: connection exceptions, insufficient
# resources, operator intervention, lock not available, I/O errors; an error without a state is a
# connection that broke.
_TRANSIENT = ("08", "53", "57", "55P03", "58030", "40")
PUBLICATION_GONE = "postgres.publication_gone"
_OBJECT_IN_USE = "55006"
_NOT_IN_PREREQUISITE_STATE = "55000"
_UNDEFINED_OBJECT = "42704"
_UNDEFINED_FILE = "58P01"
_INSUFFICIENT_PRIVILEGE = "42501"


def stream_error(state: str, message: str, slot: str) -> WaxtapError:
    """Tell what an error of START_REPLICATION, or one that ended the stream, means.

    Args:
        state: The SQLSTATE; empty when there is none.
        message: The server's message.
        slot: The slot's name.

    Returns:
        RetryableError `postgres.slot_held` when somebody reads from the slot, or
        `postgres.connection_lost`; GapError `postgres.slot_lost`, `postgres.slot_missing`,
        `postgres.wal_removed` or `postgres.publication_gone`; ConfigError
        `postgres.replication_right` or `postgres.wal_level`; FatalError `postgres.stream_failed`
        for everything else.
    """
    where = f"slot {slot}"
    if not state or state.startswith(_TRANSIENT):
        return RetryableError("postgres.connection_lost", message, where=where)
    if state == _OBJECT_IN_USE:
        return RetryableError("postgres.slot_held", message, where=where)
    if state == _UNDEFINED_OBJECT and "publication" in message:
        return GapError(
            PUBLICATION_GONE,
            f"{message} (at the place in the log that is being read)",
            where=where,
            cure=_RESTART,
        )
    if state == _UNDEFINED_OBJECT:
        return GapError("postgres.slot_missing", message, where=where, cure=_RESTART)
    if state == _UNDEFINED_FILE:
        return GapError("postgres.wal_removed", message, where=where, cure=_RESTART)
    if state == _NOT_IN_PREREQUISITE_STATE and "wal_level" in message:
        return ConfigError(
            "postgres.wal_level", message, where=where, cure="ALTER SYSTEM SET wal_level = logical"
        )
    if state == _NOT_IN_PREREQUISITE_STATE:
        return GapError("postgres.slot_lost", message, where=where, cure=_RESTART)
    if state == _INSUFFICIENT_PRIVILEGE:
        return ConfigError(
            "postgres.replication_right", message, where=where, cure="ALTER ROLE ... REPLICATION"
        )
    return FatalError(
        "postgres.stream_failed",
        f"the server cannot go on sending: {message} ({state})",
        where=where,
        cure="see the server's log",
    )


_RESTART = "start the source again: it then names the gap and how to accept it"
