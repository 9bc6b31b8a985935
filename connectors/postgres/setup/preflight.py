"""Everything that must be right before a source starts: one clear error for each thing that is not.

The checks that concern publications not made by Waxtap are in `publication.check_foreign`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from psycopg import sql

from connectors.errors import ConfigError, RetryableError
from connectors.postgres.server import Connection, rows
from connectors.postgres.setup.slot import no_free_slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.postgres.setup.inventory import Table
    from connectors.postgres.setup.patterns import TablePattern
    from connectors.postgres.setup.settings import Settings
    from connectors.postgres.setup.slot import Slot

OLDEST_VERSION = 130000
_DECODING_STANDBYS = 160000


def check_server(connection: Connection, settings: Settings, *, resumes: bool = False) -> None:
    """Check what must hold of the server and of the role.

    Args:
        connection: To the server.
        settings: The source's.
        resumes: Whether the source has been read before, when the server was none of what is wrong.

    Raises:
        RetryableError: `postgres.standby`, for one that resumes: the server may be promoted.
        ConfigError: `postgres.version`, `postgres.standby`, `postgres.wal_level`,
            `postgres.encoding`, `postgres.replication_right` or `postgres.no_free_sender`.
    """
    where = f"{connection.info.host}:{connection.info.port}"
    check_version(connection.info.server_version, where)
    ((standby, level, encoding, allowed, role, senders, limit),) = rows(
        connection,
        "SELECT pg_is_in_recovery(), current_setting('wal_level'), getdatabaseencoding(),"
        # Amazon RDS grants replication by a role of its own instead of the attribute.
        " r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_roles m"
        "   WHERE m.rolname = 'rds_replication' AND pg_has_role(r.oid, m.oid, 'MEMBER')),"
        " r.rolname::text, (SELECT count(*) FROM pg_stat_activity"
        # An older session of this source will be ended.
        "   WHERE backend_type = 'walsender'"
        "   AND NOT (usename = current_user"
        "            AND application_name = current_setting('application_name'))),"
        " current_setting('max_wal_senders')::int"
        " FROM pg_roles r WHERE r.rolname = current_user",
    )
    if standby:
        _check_standby(connection, settings, where, resumes=resumes)
    if level != "logical":
        raise ConfigError(
            "postgres.wal_level",
            f"wal_level is {level}, so the log does not carry what logical decoding needs",
            where=where,
            cure="ALTER SYSTEM SET wal_level = logical; then restart the server",
        )
    if encoding == "SQL_ASCII":
        raise ConfigError(
            "postgres.encoding",
            "the database's encoding is SQL_ASCII: nothing tells how its text is to be read",
            where=f"{where}/{connection.info.dbname}",
            cure="move the data into a database with a real encoding, such as UTF8",
        )
    if not allowed:
        raise ConfigError(
            "postgres.replication_right",
            f"the role {role} has no REPLICATION right",
            where=where,
            cure=f"ALTER ROLE {sql.Identifier(str(role)).as_string()} REPLICATION",
        )
    if cast("int", senders) >= cast("int", limit):
        raise ConfigError(
            "postgres.no_free_sender",
            f"all {limit} WAL senders of the server are in use",
            where=where,
            cure="raise max_wal_senders and restart the server, or stop a reader that"
            " pg_stat_replication shows",
        )


def _check_standby(
    connection: Connection, settings: Settings, where: str, *, resumes: bool
) -> None:
    if not settings.reads_standby:
        message = "the server is a standby, which cannot hold a publication of its own"
        cure = (
            "give the primary's address, or add target_session_attrs=read-write to the DSN; or name"
            " the primary in `primary_dsn`, to read from the standby (16+)"
        )
        # In the midst of a failover it is one for a moment.
        kind = RetryableError if resumes else ConfigError
        raise kind("postgres.standby", message, where=where, cure=cure)
    if connection.info.server_version < _DECODING_STANDBYS:
        raise ConfigError(
            "postgres.standby",
            "standbys decode their log since PostgreSQL 16",
            where=where,
            cure="give the primary's address",
        )


def check_version(version: int, where: str) -> None:
    """Check the server's version, given as libpq does: 130004 is 13.4.

    Raises:
        ConfigError: `postgres.version`.
    """
    if version < OLDEST_VERSION:
        raise ConfigError(
            "postgres.version",
            f"the server is PostgreSQL {version // 10000}",
            where=where,
            cure="13 is the oldest version that is supported",
        )


def system_identifier(connection: Connection) -> str:
    """What tells one database cluster from every other."""
    ((identifier,),) = rows(connection, "SELECT system_identifier::text FROM pg_control_system()")
    return str(identifier)


def check_tables(
    tables: Sequence[Table], selected: Sequence[Table], patterns: Sequence[TablePattern]
) -> None:
    """Check that the patterns take some table.

    Raises:
        ConfigError: `postgres.no_tables`.
    """
    if selected:
        return
    texts = ", ".join(pattern.text for pattern in patterns)
    raise ConfigError(
        "postgres.no_tables",
        f"no table matches {texts} (of {len(tables)} in the database)",
        where="tables",
        cure="check the spelling; names with capitals or blanks need quotes, as in SQL",
    )


def check_identity(stored: Sequence[Table]) -> None:
    """Check that the log will tell which row an UPDATE or DELETE is about.

    Args:
        stored: The tables that hold the published rows.

    Raises:
        ConfigError: `postgres.replica_identity`; names every table that lacks it.
    """
    lacking = [table for table in stored if not table.identified]
    if not lacking:
        return
    reasons = {
        "n": "replica identity NOTHING",
        "d": "no primary key",
        "i": "a replica identity index that was dropped",
    }
    listed = ", ".join(f"{table} ({reasons[table.identity]})" for table in lacking)
    cures = "; ".join(
        f"ALTER TABLE {table.identifier.as_string()} REPLICA IDENTITY FULL" for table in lacking
    )
    raise ConfigError(
        "postgres.replica_identity",
        "UPDATE and DELETE would fail on the server once these tables are published,"
        f" because their rows cannot be told apart: {listed}",
        where="tables",
        cure=f"add a primary key, or run {cures}, or leave them out of `tables` (a PostgreSQL sink "
        "refuses rows without a key)",
    )


def check_free_slot(connection: Connection, name: str) -> None:
    """Check that one more slot can be created.

    Raises:
        ConfigError: `postgres.no_free_slot`.
    """
    ((free,),) = rows(
        connection,
        "SELECT current_setting('max_replication_slots')::int > count(*) FROM pg_replication_slots",
    )
    if not free:
        raise no_free_slot(name)


def check_slot(connection: Connection, slot: Slot) -> None:
    """Check that a slot is one for us.

    Raises:
        ConfigError: `postgres.slot_plugin` or `postgres.slot_database`.
    """
    where = f"slot {slot.name}"
    cure = "choose another `slot`"
    if slot.plugin != "pgoutput":
        kind = f"is for the plugin {slot.plugin}" if slot.plugin else "is a physical one"
        raise ConfigError("postgres.slot_plugin", f"it {kind}", where=where, cure=cure)
    if slot.database != connection.info.dbname:
        raise ConfigError(
            "postgres.slot_database",
            f"it is for the database {slot.database}, not {connection.info.dbname}",
            where=where,
            cure=cure,
        )
