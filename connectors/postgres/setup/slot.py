"""The replication slot: from where the server keeps the log for a source."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import psycopg
from psycopg import errors, sql

from connectors.errors import ConfigError, RetryableError
from connectors.postgres.pgoutput.lsn import parse_lsn
from connectors.postgres.server import Connection, one_line, rows

RELEASE_TIMEOUT_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot as the server describes it.

    Attributes:
        name: Its name.
        plugin: Its output plugin; empty for a physical slot.
        database: Its database; empty for a physical slot.
        confirmed: The LSN up to which the log has been confirmed.
        lost: True when the server has removed log that it needs, or has invalidated it.
        holder: The pid that uses it; 0: nobody.
        failover: True when standbys may copy it (17+).
        synced: True when it is such a copy: nobody can read from it before the server is promoted.
    """

    name: str
    plugin: str
    database: str
    confirmed: int
    lost: bool
    holder: int
    failover: bool = False
    synced: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that uses a slot.

    Attributes:
        pid: Its process.
        role: Its role.
        application: Its application name.
        address: From where it comes; empty when it is local or not ours to see.
        ours: True when it is an older session of the same source: same role, same name.
    """

    pid: int
    role: str
    application: str
    address: str
    ours: bool


def find(connection: Connection, name: str) -> Slot | None:
    """Read a slot; None when there is none of that name."""
    found = rows(
        connection,
        "SELECT coalesce(plugin::text, ''), coalesce(database::text, ''),"
        " coalesce(confirmed_flush_lsn::text, '0/0'), coalesce(wal_status, '') = 'lost',"
        " coalesce(active_pid, 0), to_jsonb(s) ->> 'invalidation_reason',"
        " coalesce((to_jsonb(s) ->> 'failover')::bool, false),"
        # It stays set once the server is promoted.
        " coalesce((to_jsonb(s) ->> 'synced')::bool, false) AND pg_is_in_recovery()"
        " FROM pg_replication_slots s WHERE slot_name = %s",
        name,
    )
    if not found:
        return None
    plugin, database, confirmed, lost, holder, invalid, failover, synced = found[0]
    return Slot(
        name=name,
        plugin=str(plugin),
        database=str(database),
        confirmed=parse_lsn(str(confirmed)),
        lost=bool(lost) or invalid is not None,
        holder=cast("int", holder),
        failover=bool(failover),
        synced=bool(synced),
    )


def find_holder(connection: Connection, pid: int, application: str) -> Holder | None:
    """Tell who uses a slot; None when the session has just ended."""
    found = rows(
        connection,
        "SELECT coalesce(usename::text, ''), coalesce(application_name, ''),"
        " coalesce(host(client_addr), ''), coalesce(usename = current_user, false)"
        " FROM pg_stat_activity WHERE pid = %s",
        pid,
    )
    if not found:
        return None
    role, name, address, same_role = found[0]
    return Holder(pid, str(role), str(name), str(address), bool(same_role) and name == application)


def create(connection: Connection, name: str, *, failover: bool = False) -> Slot:
    """Create a logical slot for pgoutput; changes committed from now on are kept.

    Waits for the transactions that are under way.

    Args:
        connection: To the server.
        name: Its name.
        failover: Whether standbys may copy it; the server is a primary of version 17 at least.

    Raises:
        ConfigError: `postgres.slot_rights`, or `postgres.no_free_slot`.
        RetryableError: The connection broke, or old transactions did not end in time.
    """
    try:
        if failover:
            connection.execute(
                "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', failover => true)",
                [name],
            )
        else:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    except errors.ConfigurationLimitExceeded as error:
        raise no_free_slot(name) from error
    except errors.InsufficientPrivilege as error:
        raise ConfigError(
            "postgres.slot_rights",
            f"the role may not create it: {one_line(str(error))}",
            where=f"slot {name}",
            cure="ALTER ROLE ... REPLICATION",
        ) from None
    except errors.DuplicateObject:
        # A session of the same source was quicker; the slot is as good as ours.
        pass
    except (errors.QueryCanceled, errors.LockNotAvailable):
        # It waits for each of them by a lock.
        raise RetryableError(
            "postgres.slot_waits",
            "the new slot waits for transactions that are older than it",
            where=f"slot {name}",
            cure="end the oldest transactions in pg_stat_activity and pg_prepared_xacts",
        ) from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise RetryableError("postgres.connection_lost", one_line(str(error))) from None
    slot = find(connection, name)
    if slot is None:
        raise RetryableError("postgres.slot_vanished", "dropped meanwhile", where=f"slot {name}")
    return slot


def no_free_slot(name: str) -> ConfigError:
    """The error for a server all of whose slots are taken."""
    return ConfigError(
        "postgres.no_free_slot",
        "all replication slots of the server are taken",
        where=f"slot {name}",
        cure="raise max_replication_slots and restart the server, or drop slots that nobody uses:"
        " SELECT slot_name, active FROM pg_replication_slots",
    )


def take_over(connection: Connection, name: str, application: str) -> None:
    """End an older session of the same source that still holds the slot, and wait for release.

    Raises:
        ConfigError: `postgres.slot_in_use`: somebody else holds it.
        RetryableError: `postgres.slot_held`: it was not released in time.
    """
    deadline = time.monotonic() + RELEASE_TIMEOUT_S
    while time.monotonic() < deadline:
        slot = find(connection, name)
        if slot is None or not slot.holder:
            return
        holder = find_holder(connection, slot.holder, application)
        if holder is not None:
            if not holder.ours:
                raise in_use(name, holder)
            terminate(connection, holder.pid)
        time.sleep(_POLL_S)
    raise RetryableError(
        "postgres.slot_held",
        f"an older session of this source did not let go within {RELEASE_TIMEOUT_S:.0f} s",
        where=f"slot {name}",
        cure="SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots",
    )


def terminate(connection: Connection, pid: int) -> None:
    """Ask the server to end a session."""
    rows(connection, "SELECT pg_terminate_backend(%s)", pid)


def in_use(name: str, holder: Holder) -> ConfigError:
    """The error for a slot that somebody else reads."""
    who = f"pid {holder.pid}, role {holder.role!r}, application {holder.application!r}"
    address = f", from {holder.address}" if holder.address else ""
    return ConfigError(
        "postgres.slot_in_use",
        f"another session reads from it: {who}{address}",
        where=f"slot {name}",
        cure=f"stop that reader or run SELECT pg_terminate_backend({holder.pid}), or choose"
        " another `slot`",
    )


def drop(connection: Connection, name: str) -> None:
    """Drop a slot if it exists.

    Raises:
        RetryableError: Somebody holds it, or the connection broke.
    """
    try:
        connection.execute(
            sql.SQL(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE slot_name = {}"
            ).format(sql.Literal(name))
        )
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise RetryableError(
            "postgres.slot_held", one_line(str(error)), where=f"slot {name}"
        ) from None
