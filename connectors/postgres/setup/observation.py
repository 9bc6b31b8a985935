"""How far a server's log is, and what it keeps of it for a slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from connectors.contracts.source import Observation
from connectors.postgres.pgoutput.lsn import format_lsn, parse_lsn
from connectors.postgres.server import rows

if TYPE_CHECKING:
    from connectors.postgres.server import Connection

_END = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
    " ELSE pg_current_wal_lsn() END::text"
)
# A slot is active from the moment its making begins; what commits before that has come to its end
# (there is no confirmed LSN until then) is not captured.
_SLOT = (
    "SELECT active AND confirmed_flush_lsn IS NOT NULL,"
    " restart_lsn::text, confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
)


def observe(connection: Connection, slot: str, stored: int | None) -> Observation:
    """Where a server is.

    Args:
        connection: To it.
        slot: The name of the source's slot.
        stored: The LSN up to which everything is stored; None: the slot's own counts.

    Raises:
        RetryableError: The connection broke.
        FatalError: The server refuses the query.
    """
    ((text,),) = rows(connection, _END)
    end = parse_lsn(str(text))
    found = rows(connection, _SLOT, slot)
    if not found:
        lag = None if stored is None else max(end - stored, 0)
        return Observation(format_lsn(end), lag=lag)
    active, restart, confirmed = found[0]
    reached = stored if stored is not None else _lsn(confirmed)
    return Observation(
        position=format_lsn(end),
        slot=slot,
        slot_active=cast("bool", active),
        retained=max(end - (_lsn(restart) or end), 0),
        lag=None if reached is None else max(end - reached, 0),
    )


def _lsn(text: object) -> int | None:
    return None if text is None else parse_lsn(str(text))
