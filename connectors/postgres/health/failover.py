"""Slots that a standby keeps as well, so that capturing goes on there once it is promoted.

PostgreSQL documentation, "Logical Replication Failover": the primary marks the slot, the standby
copies it. What the standby lacks can mostly be seen from the primary.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import structlog

from connectors.postgres.conninfo import replication
from connectors.postgres.server import Connection, one_line, rows

if TYPE_CHECKING:
    from connectors.postgres.setup.settings import Settings
    from connectors.postgres.setup.slot import Slot

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SINCE = 170000
_STANDBYS = """
SELECT (SELECT count(*) FROM pg_stat_replication r WHERE NOT EXISTS (SELECT
          FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')),
       (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%slotsync worker'),
       current_setting('synchronized_standby_slots')
"""


def can(connection: Connection) -> bool:
    """Whether the server knows of slots that are kept over a failover."""
    return connection.info.server_version >= SINCE


def ensure(connection: Connection, settings: Settings, slot: Slot | None) -> None:
    """Mark a slot of ours as `failover` says, while nobody reads from it; tell what is missing.

    What the server refuses is told in the log: without the mark capturing goes on as well.

    Raises:
        RetryableError: The connection broke.
    """
    if not can(connection) or slot is None or not settings.create:
        return
    ((standby,),) = rows(connection, "SELECT pg_is_in_recovery()")
    if standby:
        return
    if slot.failover != settings.failover and not slot.lost:
        _alter(settings)
    if settings.failover and (missing := advice(connection)):
        _log.warning(
            "a failover would lose the slot, or changes", source=settings.source, missing=missing
        )


def advice(connection: Connection) -> list[str]:
    """What a primary that has standbys lacks for a failover, as far as it can be told from it.

    Raises:
        RetryableError: The connection broke.
    """
    ((standbys, syncing, waits),) = rows(connection, _STANDBYS)
    if not standbys:
        return []
    missing = []
    if not syncing:
        missing.append(
            "no standby copies slots: on the standby, sync_replication_slots = on,"
            " hot_standby_feedback = on, primary_slot_name, and a dbname in primary_conninfo"
        )
    if not waits:
        missing.append(
            "changes may be captured that a standby does not have yet: on the primary, name the"
            " standby's physical slot in synchronized_standby_slots"
        )
    return missing


def _alter(settings: Settings) -> None:
    """PostgreSQL documentation, "Streaming Replication Protocol": ALTER_REPLICATION_SLOT."""
    wanted = "true" if settings.failover else "false"
    command = f'ALTER_REPLICATION_SLOT "{settings.slot}" (FAILOVER {wanted})'
    try:
        with closing(
            psycopg.connect(replication(settings.dsn, settings.source), autocommit=True)
        ) as connection:
            connection.execute(command.encode())
    except psycopg.Error as error:
        _log.warning(
            "the slot cannot be marked for a failover",
            source=settings.source,
            slot=settings.slot,
            reason=one_line(str(error)),
        )
    else:
        _log.info("the slot was marked", source=settings.source, failover=settings.failover)
