"""How much log the server keeps for a slot, and how near that is to an end.

Columns: PostgreSQL documentation, "pg_replication_slots".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from connectors.contracts.source import LogHealth
from connectors.postgres.server import rows
from connectors.quantities import size_text

if TYPE_CHECKING:
    from connectors.postgres.server import Connection

# What share of what may be kept is worth a warning: as much again fits before somebody acts.
WORRYING = 0.5

_RETENTION = """
SELECT greatest(pg_wal_lsn_diff(
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
         restart_lsn), 0)::bigint,
       safe_wal_size, coalesce(wal_status, ''), to_jsonb(s) ->> 'invalidation_reason'
FROM pg_replication_slots s WHERE slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """What the server keeps for a slot.

    Attributes:
        retained: Bytes of log from where the slot begins to the log's end; None: it is lost.
        left: How many more bytes may be written before the server itself lets go
            (`max_slot_wal_keep_size`); None: any number.
        lost: Why the slot is of no use any more; empty: it is not lost.
    """

    retained: int | None
    left: int | None
    lost: str


def look(connection: Connection, slot: str) -> Retention | None:
    """What the server keeps for a slot; None: there is no such slot.

    Raises:
        RetryableError: The connection broke.
        FatalError: The server refuses the query.
    """
    found = rows(connection, _RETENTION, slot)
    if not found:
        return None
    retained, left, status, reason = found[0]
    lost = str(reason) if reason else ("wal_removed" if status == "lost" else "")
    return Retention(cast("int | None", retained), cast("int | None", left), lost)


def judge(slot: str, retention: Retention, most: int) -> LogHealth:
    """How that is.

    Args:
        slot: The slot's name.
        retention: What the server keeps for it.
        most: What it may keep by the source's own setting, `max_slot_lag`; 0: any amount.
    """
    if retention.lost or retention.retained is None:
        reason = retention.lost or "it has no beginning"
        message = f"slot {slot} is lost ({reason}): what was not read yet cannot be read any more"
        return LogHealth(0, most, endangered=True, message=message)
    retained = retention.retained
    limit, by = most, "max_slot_lag"
    if retention.left is not None:
        servers = retained + max(retention.left, 0)
        if not limit or servers < limit:
            limit, by = servers, "the server's max_slot_wal_keep_size"
    if not limit or retained < limit * WORRYING:
        return LogHealth(retained, limit)
    message = (
        f"the server keeps {size_text(retained)} of log for slot {slot},"
        f" of {size_text(limit)} that it may ({by})"
    )
    return LogHealth(retained, limit, endangered=True, message=message)
