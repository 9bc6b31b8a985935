"""Everything that must be right before a source starts, with one clear error for each thing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from connectors.errors import ConfigError, FatalError
from connectors.mysql.server import Connection, rows

if TYPE_CHECKING:
    from connectors.mysql.setup.settings import Settings

# The first with `binlog_row_metadata`, without which the log has no names of columns.
_OLDEST = {"mysql": (8, 0, 1), "mariadb": (10, 5, 0)}
_VARIABLES = (
    "version",
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "gtid_mode",
    "server_id",
    "server_uuid",
    "server_uid",
    "log_replica_updates",
    "log_slave_updates",
    "lower_case_table_names",
    "mysql56_temporal_format",
)


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself.

    Attributes:
        where: Its host and port.
        variables: Those of its settings that concern us; others are missing.
        mariadb: Which kind of server it is.
        version: Its version.
    """

    where: str
    variables: dict[str, str]
    mariadb: bool
    version: tuple[int, ...]

    @property
    def identity(self) -> str:
        """What tells it from every other server of its topology."""
        known = self.variables.get("server_uuid") or self.variables.get("server_uid")
        return known or f"server {self.variables.get('server_id', '')}"

    @property
    def folds_names(self) -> bool:
        """Whether names of tables are not told apart by case."""
        return self.variables.get("lower_case_table_names", "0") != "0"


def look(connection: Connection) -> Server:
    """Ask a server what it is.

    Raises:
        RetryableError: The connection broke.
    """
    names = ", ".join(f"'{name}'" for name in _VARIABLES)
    found = rows(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    variables = {str(name): str(value) for name, value in found}
    version = variables.get("version", "")
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))
    where = connection.unix_socket or f"{connection.host}:{connection.port}"
    return Server(str(where), variables, "mariadb" in version.lower(), numbers)


def check_kind(server: Server, settings: Settings) -> None:
    """Check that a server is of the kind and the age that is expected.

    Raises:
        ConfigError: `mysql.kind` or `mysql.version`.
    """
    kind = "mariadb" if server.mariadb else "mysql"
    if kind != settings.type:
        raise ConfigError(
            "mysql.kind",
            f"the server is {'MariaDB' if server.mariadb else 'MySQL'}, and their logs differ",
            where=server.where,
            cure=f"write `type: {kind}`",
        )
    if server.version < _OLDEST[kind]:
        oldest = ".".join(map(str, _OLDEST[kind]))
        raise ConfigError(
            "mysql.version",
            f"the server has version {server.variables.get('version')}",
            where=server.where,
            cure=f"{oldest} is the oldest version that is supported",
        )


def check_log(server: Server) -> None:
    """Check that the log carries what decoding needs.

    Raises:
        ConfigError: `mysql.log_bin`, `mysql.binlog_format`, `mysql.binlog_row_image`,
            `mysql.binlog_row_metadata`, `mysql.partial_json`, `mysql.gtid_mode` or
            `mysql.temporal_format`.
    """
    if server.variables.get("log_bin") != "ON":
        raise ConfigError(
            "mysql.log_bin",
            "the server writes no binary log (log_bin is OFF)",
            where=server.where,
            cure="put `log_bin` and a `server_id` of its own into its configuration, then restart",
        )
    for name, value in (
        ("binlog_format", "ROW"),
        ("binlog_row_image", "FULL"),
        ("binlog_row_metadata", "FULL"),
    ):
        found = server.variables.get(name, value)
        if found.upper() != value:
            raise ConfigError(
                f"mysql.{name}",
                f"{name} is {found}, so the log does not tell whole rows with their columns' names",
                where=server.where,
                cure=_assignment(server, name, value),
            )
    if server.variables.get("binlog_row_value_options"):
        raise ConfigError(
            "mysql.partial_json",
            "binlog_row_value_options is PARTIAL_JSON, so the log lacks parts of JSON documents",
            where=server.where,
            cure=_assignment(server, "binlog_row_value_options", ""),
        )
    if server.variables.get("gtid_mode", "ON") != "ON":
        raise ConfigError(
            "mysql.gtid_mode",
            f"gtid_mode is {server.variables['gtid_mode']}, so transactions have no global ids",
            where=server.where,
            cure="one after the other: SET PERSIST enforce_gtid_consistency = ON;"
            " SET PERSIST gtid_mode = OFF_PERMISSIVE; SET PERSIST gtid_mode = ON_PERMISSIVE;"
            " SET PERSIST gtid_mode = ON",
        )
    if server.variables.get("mysql56_temporal_format", "ON") != "ON":
        raise ConfigError(
            "mysql.temporal_format",
            "mysql56_temporal_format is OFF, so the log does not tell the precision of times",
            where=server.where,
            cure=_assignment(server, "mysql56_temporal_format", "ON"),
        )


def check_replica(connection: Connection, server: Server, settings: Settings) -> None:
    """Check how this source and the server itself stand among replicas.

    Raises:
        ConfigError: `mysql.server_id`: another replica, or the server, has our id;
            `mysql.replica_updates`: the server does not log what it replicates.
    """
    if server.variables.get("server_id") == str(settings.server_id):
        raise _server_id_taken(settings, "the server itself")
    for replica in replicas(connection, server):
        if replica["server_id"] == str(settings.server_id) and replica["host"] != report_name(
            settings.source
        ):
            raise _server_id_taken(settings, f"a replica of the server ({replica['host']})")
    updates = server.variables.get("log_replica_updates", server.variables.get("log_slave_updates"))
    if updates == "OFF" and is_replica(connection, server):
        raise ConfigError(
            "mysql.replica_updates",
            "the server is a replica that does not log what it replicates",
            where=server.where,
            cure="set `log_replica_updates` (MariaDB: `log_slave_updates`) in its configuration,"
            " and restart it; or capture from its source",
        )


def replicas(connection: Connection, server: Server) -> list[dict[str, str]]:
    """The replicas that have registered; none where we may not see them."""
    query = "SHOW REPLICA HOSTS" if server.mariadb else "SHOW REPLICAS"
    if not server.mariadb and server.version < (8, 0, 22):
        query = "SHOW SLAVE HOSTS"
    try:
        found = rows(connection, query)
    except ConfigError:
        return []
    return [{"server_id": str(row[0]), "host": str(row[1])} for row in found]


def is_replica(connection: Connection, server: Server) -> bool:
    """Whether the server replicates from another one; False where we may not see that."""
    newer = server.version >= ((10, 5, 1) if server.mariadb else (8, 0, 22))
    query = "SHOW REPLICA STATUS" if newer else "SHOW SLAVE STATUS"
    try:
        return bool(rows(connection, query))
    except ConfigError:
        return False


def log_status(connection: Connection, server: Server) -> tuple[str, int]:
    """The file that the server writes, and where its end is.

    Raises:
        ConfigError: `mysql.monitor_right`.
        FatalError: `mysql.query_refused`.
    """
    newer = not server.mariadb and server.version >= (8, 2)
    try:
        found = rows(connection, "SHOW BINARY LOG STATUS" if newer else "SHOW MASTER STATUS")
    except ConfigError as error:
        right = "BINLOG MONITOR" if server.mariadb else "REPLICATION CLIENT"
        raise ConfigError(
            "mysql.monitor_right",
            error.message,
            where=server.where,
            cure=f"GRANT {right} ON *.* TO the account",
        ) from None
    if not found:
        raise FatalError("mysql.no_log", "the server names no binary log", where=server.where)
    return str(found[0][0]), cast("int", found[0][1])


def report_name(source: str) -> str:
    """Under which name a source registers as a replica; the server keeps 60 characters."""
    return re.sub(r"[^\x21-\x7e]", "?", f"waxtap/{source}")[:60]


def _server_id_taken(settings: Settings, by: str) -> ConfigError:
    return ConfigError(
        "mysql.server_id",
        f"the server_id {settings.server_id} is that of {by}: they would end each other's sessions",
        where=f"sources.{settings.source}.server_id",
        cure="set `server_id` to a number that no server of the topology has",
    )


def _assignment(server: Server, name: str, value: str) -> str:
    if server.mariadb:
        return (
            f"SET GLOBAL {name} = '{value}', and `{name} = {value}` in the server's configuration;"
            " sessions that are open keep their own setting until they end"
        )
    return f"SET PERSIST {name} = '{value}'; sessions that are open keep their own until they end"
