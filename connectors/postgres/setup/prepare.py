"""Brings publication and slot to the state that a source starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError
from connectors.postgres.health import failover as failing_over
from connectors.postgres.pgoutput.lsn import format_lsn, stored_lsn
from connectors.postgres.server import rows
from connectors.postgres.setup import gaps, inventory, preflight, publication, slot
from connectors.postgres.setup.primary import primary, snapshots_logged
from connectors.postgres.setup.settings import gap_token
from connectors.snapshot.progress import STATE, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.postgres.server import Connection
    from connectors.postgres.setup.settings import Settings


_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# So many tables are named in a command; a pattern says more.
_MOST_NAMED = 20


class Start(NamedTuple):
    """Where a source starts.

    Attributes:
        checkpoint: Behind which.
        refill: The stored checkpoint, where what the targets hold is to be emptied first; None: it
            is not.
    """

    checkpoint: Checkpoint
    refill: Checkpoint | None = None


def is_ours(found: publication.Publication, settings: Settings) -> bool:
    """Whether this source made a publication, and may therefore alter and drop it."""
    return found.comment.startswith(publication.mark(settings.source, ""))


def prepare_publication(
    connection: Connection, settings: Settings, resume: Checkpoint | None = None
) -> bool:
    """Check or create the publication, and bring one of ours to what the patterns say.

    Args:
        connection: To where it is, or is made.
        settings: The source's.
        resume: Behind which the source goes on; then there was a publication.

    Returns:
        True when it must be kept up to date with tables that appear later.

    Raises:
        ConfigError: What has to be set up first.
        GapError: `postgres.publication_gone`.
        RetryableError: The connection broke, or a lock was not to be had in time.
    """
    tables = inventory.list_tables(connection)
    found = publication.find(connection, settings.publication)
    ours = settings.create and (found is None or is_ours(found, settings))
    if found is None and not settings.create:
        raise ConfigError(
            "postgres.publication_missing",
            "it does not exist, and `create` is false",
            where=f"publication {settings.publication}",
            cure=f"CREATE PUBLICATION {settings.publication} FOR TABLE ... WITH"
            " (publish_via_partition_root = true), or set `create: true`",
        )
    if found is None and resume is not None and not settings.accepts_gap(stored_lsn(resume)):
        # What was committed since can be read by no publication of later.
        raise gaps.publication_gone(
            "it no longer exists, so changes are missing",
            settings.publication,
            settings,
            stored_lsn(resume),
        )
    if settings.all_published and found is not None:
        selected = [table for table in tables if (table.schema, table.name) in found.published]
    else:
        selected = inventory.select(tables, settings.patterns)
    preflight.check_tables(tables, selected, settings.patterns)
    preflight.check_identity(inventory.storage(tables, selected))
    if found is not None and not ours:
        publication.check_foreign(found, tables, selected)
        return False
    scope = publication.desired_scope(connection, settings.patterns, selected)
    comment = publication.mark(settings.source, settings.slot)
    if found is None:
        publication.create(connection, settings.publication, scope, comment)
    else:
        publication.ensure_scope(connection, found, scope, comment)
        _tell_of_new(settings, found.scope, scope, selected)
    return not scope.everything


def _tell_of_new(
    settings: Settings,
    before: publication.Scope,
    scope: publication.Scope,
    selected: Iterable[inventory.Table],
) -> None:
    """Say of which tables the rows that are there already were never told."""
    tables, schemas = scope.tables - before.tables, scope.schemas - before.schemas
    new = sorted(
        f"{table.schema}.{table.name}"
        for table in selected
        if (table.schema, table.name) in tables or table.schema in schemas
    )
    if new and not before.everything:
        words = " ".join(f"--table {name}" for name in new[:_MOST_NAMED])
        _log.warning(
            "tables are captured from now on, but for the rows that are there already",
            source=settings.source,
            tables=new,
            cure=f"waxtap backfill start {settings.source} {words}",
        )


def prepare_slot(
    connection: Connection, settings: Settings, system: str, resume: Checkpoint | None
) -> Start:
    """Check or create the slot.

    Returns:
        Where to start.

    Raises:
        ConfigError: What has to be set up first.
        GapError: The server no longer has what follows `resume`.
        RetryableError: The connection broke, or the slot could not be created in time.
    """
    found = slot.find(connection, settings.slot)
    if found is not None:
        preflight.check_slot(connection, found)
    if resume is None:
        if found is None:
            found = _create(connection, settings)
        if found.lost:
            raise gaps.slot_lost(found)
        state = {"lsn": format_lsn(found.confirmed), "system": system}
        if settings.snapshot != "never":
            state[STATE] = Progress().encoded
        return Start(Checkpoint("", state))
    gaps.check_system(resume.state["system"], system)
    if settings.snapshot == "never" and STATE in resume.state:
        state = {key: value for key, value in resume.state.items() if key != STATE}
        resume = Checkpoint(resume.position, state)
    lsn = stored_lsn(resume)
    if not settings.accepts_gap(lsn):
        gaps.check_position(connection, found, settings, lsn)
        return Start(resume)
    unusable = found is not None and found.confirmed <= lsn and settings.accepts_new_slot(lsn)
    if found is not None and settings.create and (found.lost or unusable):
        # What is in it is gone, or cannot be read.
        slot.take_over(connection, settings.slot, settings.application)
        slot.drop(connection, settings.slot)
        found = None
    if found is None:
        found = _create(connection, settings)
    elif found.lost:
        raise gaps.slot_lost(found)
    if found.confirmed <= lsn:
        gaps.check_position(connection, found, settings, lsn)
        return Start(resume)
    state = {**resume.state, "lsn": format_lsn(found.confirmed)}
    if settings.snapshot == "never":
        if settings.accepts_refill(lsn):
            raise _nothing_to_refill_with(settings, lsn)
        return Start(Checkpoint(resume.position, state))
    # What changed in the gap, only the tables can tell.
    state[STATE] = Progress().encoded
    refill = resume if settings.accepts_refill(lsn) else None
    return Start(Checkpoint(resume.position, state), refill)


def drop(connection: Connection, settings: Settings) -> list[str]:
    """Drop the slot and the publication as far as they are the source's own.

    An older session of the source is ended.

    Returns:
        What was dropped, such as `slot waxtap_shop`.

    Raises:
        ConfigError: Somebody else uses the slot.
        RetryableError: The connection broke, or the slot was not released.
    """
    dropped = []
    found = publication.find(connection, settings.publication)
    ours = found is not None and is_ours(found, settings)
    recorded = found is not None and found.comment == publication.mark(
        settings.source, settings.slot
    )
    if (
        settings.create
        and (settings.default_slot or recorded)
        and slot.find(connection, settings.slot) is not None
    ):
        slot.take_over(connection, settings.slot, settings.application)
        slot.drop(connection, settings.slot)
        dropped.append(f"slot {settings.slot}")
    if ours:
        with primary(connection, settings) as writable:
            publication.drop(writable, settings.publication)
        dropped.append(f"publication {settings.publication}")
    return dropped


def _create(connection: Connection, settings: Settings) -> slot.Slot:
    if not settings.create:
        raise slot_unknown(settings)
    preflight.check_free_slot(connection, settings.slot)
    ((standby,),) = rows(connection, "SELECT pg_is_in_recovery()")
    if standby:
        with snapshots_logged(settings):
            return slot.create(connection, settings.slot)
    failover = settings.failover and failing_over.can(connection)
    return slot.create(connection, settings.slot, failover=failover)


def _nothing_to_refill_with(settings: Settings, lsn: int) -> ConfigError:
    return ConfigError(
        "postgres.refill_without_snapshot",
        "targets would be emptied and not filled again, because `snapshot` is never",
        where=f"{settings.where}.accept",
        cure=f"set `snapshot: initial`, or accept {gap_token(settings.slot, lsn)!r} instead",
    )


def slot_unknown(settings: Settings) -> ConfigError:
    """The error for a slot that does not exist, and that the source may not create."""
    return ConfigError(
        "postgres.slot_unknown",
        "it does not exist, and `create` is false",
        where=f"slot {settings.slot}",
        cure=f"SELECT pg_create_logical_replication_slot('{settings.slot}', 'pgoutput'),"
        " or set `create: true`",
    )
