"""Whether the server still has what follows a stored position, and how to go on if it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import GapError, RetryableError
from connectors.postgres.pgoutput.lsn import format_lsn, parse_lsn
from connectors.postgres.server import Connection, rows
from connectors.postgres.setup.settings import gap_token, refill_token, unpublished_token

if TYPE_CHECKING:
    from connectors.postgres.setup.settings import Settings
    from connectors.postgres.setup.slot import Slot


def check_system(stored: str, system: str) -> None:
    """Check that the server is the one that the stored position is from.

    Raises:
        GapError: `postgres.other_system`.
    """
    if stored != system:
        raise GapError(
            "postgres.other_system",
            f"the stored position is from the database cluster {stored}, this is {system}",
            where="dsn",
            cure="point the DSN back at that cluster, or give the source a new name (then it"
            " starts anew, in a stream of its own)",
        )


def check_position(connection: Connection, slot: Slot | None, settings: Settings, lsn: int) -> None:
    """Check that the server still has everything behind the stored position.

    Args:
        connection: To the server.
        slot: The slot; None when it no longer exists.
        settings: The source's.
        lsn: The stored position.

    Raises:
        GapError: `postgres.slot_missing`, `postgres.slot_lost`, `postgres.slot_ahead`, or
            `postgres.server_behind`.
        RetryableError: `postgres.slot_synced`, `postgres.standby_behind`: the server is a standby,
            and the other will do, or this one soon.
    """
    where, stored = f"slot {settings.slot}", format_lsn(lsn)
    if slot is not None and slot.synced:
        raise RetryableError(
            "postgres.slot_synced",
            "it is a copy on a standby, which can be read once the standby is promoted",
            where=where,
        )
    accept = _acceptance(settings, lsn)
    if slot is None:
        raise GapError(
            "postgres.slot_missing",
            f"it no longer exists, so the changes behind {stored} are gone",
            where=where,
            cure=accept,
        )
    if slot.lost:
        raise slot_lost(slot, accept, drop=not settings.create)
    if slot.confirmed > lsn:
        # Asked for an older position, PostgreSQL starts at its own without a word.
        raise GapError(
            "postgres.slot_ahead",
            f"it stands at {format_lsn(slot.confirmed)}, the stored position is {stored}:"
            " somebody else has read the changes between, and they are gone",
            where=where,
            cure=accept,
        )
    ((standby, end),) = rows(
        connection,
        "SELECT pg_is_in_recovery(), (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
        " ELSE pg_current_wal_insert_lsn() END)::text",
    )
    if parse_lsn(str(end)) < lsn:
        if standby:
            raise RetryableError(
                "postgres.standby_behind",
                f"the standby has replayed its log up to {end}, the stored position is {stored}",
                where=where,
            )
        raise GapError(
            "postgres.server_behind",
            f"the server's log ends at {end}, before the stored position {stored}: it was restored"
            " from a backup, or a standby that lagged behind was promoted",
            where=where,
            cure="the stream holds changes that the server no longer knows: give the source a new"
            " name to start anew",
        )


def _acceptance(settings: Settings, lsn: int) -> str:
    """How to go on behind a gap."""
    token = gap_token(settings.slot, lsn)
    if settings.snapshot == "never":
        return (
            f"go on without them with `accept: [{token!r}]` in the source; with"
            " `snapshot: initial` beside it, all tables are read once more"
        )
    return (
        f"read all tables once more with `accept: [{token!r}]` in the source (rows that were"
        " deleted meanwhile stay in the targets), or with"
        f" `accept: [{refill_token(settings.slot, lsn)!r}]` (the targets' tables are emptied first)"
    )


def publication_gone(
    message: str, publication: str, settings: Settings | None = None, lsn: int = 0
) -> GapError:
    """The error for a publication that was dropped while it was read from.

    Args:
        message: What happened.
        publication: Its name.
        settings: The source's, where it is known behind which place changes are missing.
        lsn: That place.
    """
    cure = "start the source again: it then names the gap and how to accept it"
    if settings is not None:
        token = unpublished_token(settings.slot, lsn)
        cure = (
            f"go on behind it with `accept: [{token!r}]` in the source, which makes the slot anew,"
            " and reads all tables once more with `snapshot: initial`; or accept"
            f" {refill_token(settings.slot, lsn)!r}, which also empties the targets' tables first"
        )
    return GapError(
        "postgres.publication_gone", message, where=f"publication {publication}", cure=cure
    )


def slot_lost(slot: Slot, accept: str = "", *, drop: bool = True) -> GapError:
    """The error for a slot whose log the server has removed.

    Args:
        slot: The slot.
        accept: How to go on; empty: nothing was read from it yet.
        drop: Whether the owner must drop it.
    """
    dropping = f"SELECT pg_drop_replication_slot('{slot.name}')" if drop else ""
    return GapError(
        "postgres.slot_lost",
        "the server has removed log that it needs, or invalidated it, so the changes behind"
        f" {format_lsn(slot.confirmed)} are gone",
        where=f"slot {slot.name}",
        cure="; then ".join(filter(None, (dropping, accept)))
        + "; a larger max_slot_wal_keep_size prevents a repetition",
    )
