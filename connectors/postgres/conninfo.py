"""Connection strings: the user's DSN plus what Waxtap pins.

Every libpq form works (URL, `key=value`, service names, several hosts, TLS options). What the user
set stays, except what decoding depends on: text output formats, the encoding and the application
name, by which an older session of the same source is recognised.
"""

from __future__ import annotations

import os
import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors.errors import ConfigError

CONNECT_TIMEOUT_S = 10

# How the server renders values as text (config-setting names of PostgreSQL's "Client Connection
# Defaults"); the value decoders rely on each of them.
_PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
}
# A dead peer is noticed within about half a minute.
_KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_NAME_BYTES = 63


def application_name(source: str) -> str:
    """How a source's sessions are called in `pg_stat_activity`: `waxtap/<source>`.

    Cut to what the server keeps (63 bytes) and to what every version shows unchanged (ASCII).
    """
    ascii_only = re.sub(r"[^\x20-\x7e]", "?", f"waxtap/{source}")
    return ascii_only[:_NAME_BYTES]


def ordinary(dsn: str, source: str) -> str:
    """The conninfo of an ordinary connection, for catalog queries and DDL.

    Raises:
        ConfigError: `postgres.dsn`: not a connection string.
    """
    # A catalog query that hangs would hold the whole flow; search_path is pinned so that type
    # names come out qualified and nothing in a user's schema is called by mistake.
    settings = {"search_path": "pg_catalog", "statement_timeout": "30s", "lock_timeout": "5s"}
    return _with(dsn, source, settings)


def replication(dsn: str, source: str) -> str:
    """The conninfo of a logical replication connection.

    Raises:
        ConfigError: `postgres.dsn`: not a connection string.
    """
    return _with(dsn, source, _PINNED, replication="database")


def snapshot(dsn: str, source: str) -> str:
    """The conninfo of a connection that reads tables, whose values must look as in the log.

    Raises:
        ConfigError: `postgres.dsn`: not a connection string.
    """
    settings = {
        **_PINNED,
        # Rows that a policy hides would be missing without a word: it is an error instead.
        "row_security": "off",
        # A chunk of a large table may take its time, if an index does not help.
        "statement_timeout": "0",
        "lock_timeout": "5s",
        # A table that is read in the order of its pages must not begin in the middle.
        "synchronize_seqscans": "off",
        "max_parallel_workers_per_gather": "0",
        "jit": "off",
    }
    return _with(dsn, source, settings)


def _with(dsn: str, source: str, settings: dict[str, str], **parameters: str) -> str:
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    except psycopg.ProgrammingError:
        # libpq's message quotes the string, which may hold a password.
        raise ConfigError(
            "postgres.dsn",
            "not a PostgreSQL connection string",
            where="dsn",
            cure="write `postgresql://user@host:5432/database` or `host=... dbname=...`",
        ) from None
    # Whoever forgets to encode a password finds the rest of it taken for something else, and would
    # find it in the messages about that.
    database = given.get("dbname", "")
    if "@" in given.get("host", "")[1:] or ("@" in database and "user" not in given):
        raise ConfigError(
            "postgres.dsn",
            "there is an `@` where the host or the database should be",
            where="dsn",
            cure="write special characters of user and password as %XX (`@` is %40, `/` is %2F)",
        )
    # Ours come last: of several `-c` for one setting the server takes the last.
    options = given.get("options", os.environ.get("PGOPTIONS", ""))
    pinned = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return make_conninfo(
        "",
        **{
            "connect_timeout": str(CONNECT_TIMEOUT_S),
            **_KEEPALIVES,
            **given,
            "client_encoding": "UTF8",
            "application_name": application_name(source),
            "options": f"{options} {pinned}".strip(),
            **parameters,
        },
    )
