"""Connections that read tables, and what their errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from connectors.errors import ConfigError, FatalError, RetryableError
from connectors.postgres.conninfo import snapshot as conninfo
from connectors.postgres.server import connection_failure, rows

if TYPE_CHECKING:
    from connectors.errors import WaxtapError
    from connectors.postgres.server import Connection
    from connectors.postgres.setup.settings import Settings

_PERMISSION = "42501"


def connect_to_read(settings: Settings) -> tuple[Connection, str]:
    """Open a connection on which values look as in the log; names must be qualified.

    Returns:
        The connection, and the search path that it has otherwise.

    Raises:
        ConfigError: `postgres.login`, `postgres.dsn`.
        RetryableError: `postgres.unreachable`, or the connection broke.
    """
    try:
        connection = psycopg.connect(
            conninfo(settings.dsn, settings.source), autocommit=True, prepare_threshold=None
        )
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        raise connection_failure(error) from None
    ((path, _),) = rows(
        connection,
        "SELECT current_setting('search_path'), set_config('search_path', 'pg_catalog', false)",
    )
    return connection, str(path)


def refusal(state: str, message: str, where: str, setting: str) -> WaxtapError:
    """What the server's refusal to read a table means.

    Args:
        state: The SQLSTATE; empty when there is none.
        message: The server's message.
        where: The table; empty: it is not known.
        setting: By which setting it is read: `snapshot: never` would do without.
    """
    if state == _PERMISSION:
        return ConfigError(
            "postgres.select_right",
            message,
            where=where or setting.partition(":")[0],
            cure="GRANT SELECT on the table (and BYPASSRLS where row-level security hides rows),"
            f" or set `{setting}`",
        )
    # A table that was altered or dropped between two statements is read again.
    if not state or state[:2] in ("08", "53", "55", "57", "40") or state in ("42P01", "42703"):
        return RetryableError("postgres.connection_lost", message, where=where)
    return FatalError(
        "postgres.snapshot_refused",
        f"{message} ({state})",
        where=where or setting.partition(":")[0],
        cure="see the server's log; nothing was lost",
    )
