"""Ordinary connections to a source's server, and what its errors mean.

Error numbers: MySQL documentation, "Server Error Message Reference".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pymysql

from connectors.errors import ConfigError, FatalError, RetryableError, WaxtapError

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

    from connectors.mysql.dsn import Dsn

# The class takes no parameter but in the eyes of the type checker.
Connection: TypeAlias = "pymysql.connections.Connection[Cursor]"

CONNECT_TIMEOUT_S = 10
# A query that hangs would hold the whole flow.
_QUERY_TIMEOUT_S = 30
# What the client itself says; everything else comes from the server.
_CLIENT_ERRORS = range(2000, 3000)
_REFUSED_LOGINS = {1044, 1045, 1129, 1130, 1251, 1524, 1698, 2059, 2061, 3118, 3159, 3955, 4151}
# They pass by themselves: too many connections, shutdown, start-up, lost connections.
TRANSIENT = {0, 1040, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1205, 1213, 1927, 3169, 3168}
DENIED = {1142, 1227, 1370}


def connect(dsn: Dsn, source: str) -> Connection:
    """Open an ordinary connection in autocommit mode, to the first host that takes it.

    Raises:
        ConfigError: `mysql.login`: the server refuses these credentials; `mysql.tls`: its
            certificate is not what the DSN asks for; `mysql.tls_files`.
        RetryableError: `mysql.unreachable`.
    """
    context = dsn.context()
    failure: WaxtapError | None = None
    for host, port in dsn.hosts:
        try:
            connection = pymysql.connect(
                host=host,
                port=port,
                unix_socket=dsn.socket or None,
                user=dsn.user,
                password=dsn.password.encode(),
                ssl=context,
                ssl_disabled=dsn.tls == "disabled",
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                # A frozen server's kernel takes connections, but nobody greets on them.
                read_timeout=CONNECT_TIMEOUT_S,
                write_timeout=_QUERY_TIMEOUT_S,
                program_name=f"waxtap/{source}",
            )
        except (pymysql.Error, RuntimeError, OSError) as error:
            failure = _connection_failure(error, f"{host}:{port}")
            if isinstance(failure, ConfigError):
                raise failure from None
        else:
            # PyMySQL has one setting for the login and for queries.
            vars(connection)["_read_timeout"] = _QUERY_TIMEOUT_S
            return connection
    raise failure or RetryableError("mysql.unreachable", "the DSN names no host", where="dsn")


def rows(connection: Connection, query: str, *parameters: object) -> list[tuple[object, ...]]:
    """Run a query and return its rows.

    Raises:
        RetryableError: `mysql.connection_lost`: it broke, or the query timed out.
        ConfigError: `mysql.right_missing`.
        FatalError: `mysql.query_refused`.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return list(cursor.fetchall())
    except (pymysql.Error, OSError) as error:
        number, text = error_parts(error)
        if isinstance(error, OSError) or number in TRANSIENT or number in _CLIENT_ERRORS:
            raise RetryableError("mysql.connection_lost", text) from None
        if number in DENIED:
            raise ConfigError(
                "mysql.right_missing",
                text,
                where="dsn",
                cure="GRANT the right that the message names to the account",
            ) from None
        raise FatalError("mysql.query_refused", text) from error


def error_parts(error: BaseException) -> tuple[int, str]:
    """The number and the words of an error."""
    if isinstance(error, pymysql.Error) and len(error.args) > 1:
        return int(error.args[0]), one_line(str(error.args[1]))
    return 0, one_line(str(error)) or type(error).__name__


def one_line(text: str) -> str:
    """A server's message without its line breaks."""
    return " ".join(text.split())


def _connection_failure(error: BaseException, where: str) -> WaxtapError:
    """What a failed attempt to connect means; the messages hold no secrets."""
    number, reason = error_parts(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason or "certificate verify failed" in reason:
        return ConfigError(
            "mysql.tls",
            f"the server's certificate is refused: {reason}",
            where=where,
            cure="name the authority that signed it with `ca=`, or use `tls=verify-ca` if only the"
            " host's name differs",
        )
    if "SSL is required" in reason:
        return ConfigError(
            "mysql.tls",
            "the server offers no TLS, which the DSN demands",
            where=where,
            cure="set up TLS on the server (require_secure_transport, ssl_cert, ssl_key)",
        )
    if number in _REFUSED_LOGINS:
        return ConfigError(
            "mysql.login",
            f"the server refuses the connection: {reason}",
            where=where,
            cure="check user, password and the hosts that the account may connect from",
        )
    return RetryableError(
        "mysql.unreachable", reason, where=where, cure="check host, port and network"
    )
