"""Ordinary connections to a source's server, and what its errors mean."""

from __future__ import annotations

import re
from typing import LiteralString

import psycopg

from connectors.errors import ConfigError, FatalError, RetryableError, WaxtapError
from connectors.postgres.conninfo import ordinary

Connection = psycopg.Connection[tuple[object, ...]]

# libpq reports no SQLSTATE for a refused login, so only the server's English text tells it from a
# server that is not there; in another language it counts as the latter and is tried again.
_REFUSED = re.compile(
    r"authentication failed|does not exist|no pg_hba\.conf entry|no password supplied"
    r"|is not permitted to log in|permission denied for database|certificate verify failed"
    r"|root certificate file|must be superuser or replication role"
    r"|permission denied to start WAL sender"
)


# What libpq and psycopg say about a setting of the connection string that they read only now.
_INVALID = re.compile(
    r"(?:invalid (?:\w+ value|port number)|bad value for|could not match \d+ port numbers"
    r"|definition of service)\b.*"
)
# Such a setting may be a part of a password that was not encoded.
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'")


def connect(dsn: str, source: str) -> Connection:
    """Open an ordinary connection in autocommit mode.

    Raises:
        ConfigError: `postgres.dsn`: not what libpq understands; `postgres.login`: the server
            refuses these credentials.
        RetryableError: `postgres.unreachable`.
    """
    conninfo = ordinary(dsn, source)
    try:
        return psycopg.connect(conninfo, autocommit=True)
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        raise connection_failure(error) from None


def connection_failure(error: psycopg.Error) -> WaxtapError:
    """What a failed attempt to connect means; libpq's messages hold no secrets."""
    reason = one_line(str(error))
    if _REFUSED.search(reason):
        return ConfigError(
            "postgres.login",
            f"the server refuses the connection: {reason}",
            where="dsn",
            cure="check user, password, database, TLS options and the server's pg_hba.conf",
        )
    if invalid := _INVALID.search(reason):
        return ConfigError(
            "postgres.dsn",
            _VALUE.sub("…", invalid[0], count=1),
            where="dsn",
            cure="write `postgresql://user@host:5432/database` or `host=... dbname=...`",
        )
    return RetryableError(
        "postgres.unreachable", reason, where="dsn", cure="check host, port and network"
    )


def one_line(text: str) -> str:
    """A server's message without its line breaks."""
    return " ".join(text.split())


def rows(
    connection: Connection, query: LiteralString, *parameters: object
) -> list[tuple[object, ...]]:
    """Run a query and return its rows.

    Raises:
        RetryableError: `postgres.connection_lost`: it broke, or the query timed out.
        FatalError: `postgres.query_refused`.
    """
    try:
        return connection.execute(query, parameters or None).fetchall()
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise RetryableError("postgres.connection_lost", one_line(str(error))) from None
    except psycopg.Error as error:
        raise FatalError("postgres.query_refused", one_line(str(error))) from error
