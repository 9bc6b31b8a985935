"""What the server's errors mean for a stream of its log.

Numbers: MySQL documentation, "Server Error Message Reference". 1236 stands for everything that goes
wrong while the log is read, so that the words must tell.
"""

from __future__ import annotations

from connectors.errors import ConfigError, FatalError, GapError, RetryableError, WaxtapError
from connectors.mysql.server import DENIED, one_line

_READING = 1236
_TRANSIENT = {0, 1040, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1317, 1927, 3168, 3169}
_CLIENT_ERRORS = range(2000, 3000)
_PURGED = ("purged", "could not find first log file", "too old", "not find gtid state")
_AHEAD = ("not in the master's binlog", "ahead of", "more gtids than")
_REPLACED = ("same server_uuid", "same server_id", "same server-id", "slave with the same")


def stream_error(number: int, message: str, where: str) -> WaxtapError:
    """Tell what an error of a dump command, or one that ended the stream, means.

    Args:
        number: The error's number; 0 when the connection just ended.
        message: The server's words.
        where: Its host and port.

    Returns:
        RetryableError `mysql.connection_lost`, also when a newer session of the same source has
        replaced this one; GapError `mysql.binlog_purged` or `mysql.server_behind`; ConfigError
        `mysql.replication_right`; FatalError `mysql.stream_failed` for everything else.
    """
    text, words = one_line(message), message.lower()
    if number in _TRANSIENT or number in _CLIENT_ERRORS:
        return RetryableError("mysql.connection_lost", text, where=where)
    if number in DENIED or number == 1045:
        return ConfigError(
            "mysql.replication_right",
            text,
            where=where,
            cure="GRANT REPLICATION SLAVE ON *.* TO the account",
        )
    if number == _READING and any(part in words for part in _REPLACED):
        return RetryableError("mysql.connection_lost", text, where=where)
    if number == _READING and any(part in words for part in _PURGED):
        return GapError("mysql.binlog_purged", text, where=where, cure=_RESTART)
    if number == _READING and any(part in words for part in _AHEAD):
        return GapError("mysql.server_behind", text, where=where, cure=_RESTART)
    return FatalError(
        "mysql.stream_failed",
        f"the server cannot go on sending: {text} ({number})",
        where=where,
        cure="see the server's log",
    )


_RESTART = "start the source again: it then names the gap and how to accept it"
