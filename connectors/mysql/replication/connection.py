"""The connection that a server sends its log on.

PyMySQL makes the connection, logs in and runs the first commands; from the dump command on, its
socket is read as it is, without blocking. The command is our own: what libraries send holds
positions in 32 bits, and knows no tagged GTIDs. Format: MySQL documentation, "COM_REGISTER_SLAVE",
"COM_BINLOG_DUMP" and "COM_BINLOG_DUMP_GTID"; MariaDB documentation, "Replication Protocol".
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

import pymysql

from connectors.errors import RetryableError, WaxtapError
from connectors.mysql.binlog.gtids import MariadbGtids, MysqlGtids
from connectors.mysql.binlog.packets import PacketReader
from connectors.mysql.replication.stream_errors import stream_error
from connectors.mysql.server import Connection, connect, error_parts, rows
from connectors.mysql.setup.preflight import report_name

if TYPE_CHECKING:
    from connectors.mysql.setup.settings import Settings

_REGISTER_SLAVE, _BINLOG_DUMP, _BINLOG_DUMP_GTID = 0x15, 0x12, 0x1E
_THROUGH_GTID = 4
# A file begins behind four bytes of magic.
_FIRST = 4
HEARTBEAT_S = 0.5
# So long may a server be silent; a heartbeat comes every half second.
SILENCE_S = 10.0
_ANSWER_S = 30.0
# A worker that is held up elsewhere must not lose the session.
_NET_WRITE_TIMEOUT_S = 3600
_READ_BYTES = 256 * 1024
# What is decoded at once is in memory at once.
_DRAIN_BYTES = 1024 * 1024


class Received(NamedTuple):
    """What one `drain` found.

    Attributes:
        events: In order.
        more: False when the socket is empty.
    """

    events: list[bytes]
    more: bool


class DumpConnection:
    """One session that streams a binary log.

    Args:
        settings: The source's.

    Raises:
        ConfigError: `mysql.login`, `mysql.tls` or `mysql.tls_files`.
        RetryableError: `mysql.unreachable`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.connection: Connection = connect(settings.dsn, settings.source)
        self._socket = cast("socket.socket", vars(self.connection)["_sock"])
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._packets = PacketReader()
        self._early: list[bytes] = []
        self._heard_at = self._asked_at = time.monotonic()

    def start(self, start: MysqlGtids | MariadbGtids) -> None:
        """Begin to stream what is not in this set, and wait for the first event.

        Raises:
            WaxtapError: As `stream_error` says.
        """
        settings = self._settings
        self._prepare(start)
        try:
            self._command(_REGISTER_SLAVE, self._registration())
            self.connection._read_ok_packet()  # type: ignore[attr-defined]
            if isinstance(start, MysqlGtids):
                encoded = start.encode()
                head = struct.pack(
                    "<HIIQI", _THROUGH_GTID, settings.server_id, 0, _FIRST, len(encoded)
                )
                self._command(_BINLOG_DUMP_GTID, head + encoded)
            else:
                self._command(_BINLOG_DUMP, struct.pack("<IHI", _FIRST, 0, settings.server_id))
        except (pymysql.Error, OSError) as error:
            raise stream_error(*error_parts(error), self._where) from None
        self._socket.setblocking(False)
        deadline = time.monotonic() + _ANSWER_S
        while not self._early:
            if time.monotonic() > deadline:
                raise RetryableError(
                    "mysql.no_answer", "the server does not send", where=self._where
                )
            self.wait(1.0)
            self._early = self.drain().events
        self._heard_at = self._asked_at = time.monotonic()

    def drain(self) -> Received:
        """Take what has arrived, without waiting: up to about 1 MiB.

        Raises:
            WaxtapError: The stream has ended, as `stream_error` says; the server is silent.
        """
        events, self._early = self._early, []
        taken, packets = 0, self._packets
        try:
            while taken < _DRAIN_BYTES:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise self._ended("the server closed the connection")
                taken += len(data)
                events += packets.feed(data)
                if packets.refusal is not None:
                    break
        except (BlockingIOError, ssl.SSLWantReadError):
            self._listen(heard=taken > 0)
            if not events and packets.refusal is not None:
                raise self._ended("") from None
            return Received(events, more=False)
        except OSError as error:
            raise RetryableError("mysql.connection_lost", str(error), where=self._where) from None
        if not events and packets.refusal is not None:
            raise self._ended("")
        self._listen(heard=True)
        return Received(events, more=True)

    def wait(self, seconds: float) -> bool:
        """Wait for the server to send something; True when it has."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(self._poll.poll(seconds * 1000))

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, pymysql.Error):
            self.connection.close()

    @property
    def _where(self) -> str:
        return f"{self.connection.host}:{self.connection.port}"

    def _prepare(self, start: MysqlGtids | MariadbGtids) -> None:
        variables = {
            "master_binlog_checksum": "'CRC32'",
            "master_heartbeat_period": str(int(HEARTBEAT_S * 10**9)),
        }
        if isinstance(start, MariadbGtids):
            variables |= {
                "mariadb_slave_capability": "4",
                "slave_connect_state": f"'{start}'",
                "slave_gtid_strict_mode": "1",
                "slave_gtid_ignore_duplicates": "0",
            }
        else:
            variables |= {
                "source_binlog_checksum": "'CRC32'",
                "source_heartbeat_period": str(int(HEARTBEAT_S * 10**9)),
                "replica_uuid": f"'{self._settings.replica}'",
                "slave_uuid": f"'{self._settings.replica}'",
            }
        listed = ", ".join(f"@{name} = {value}" for name, value in variables.items())
        rows(self.connection, f"SET {listed}, SESSION net_write_timeout = {_NET_WRITE_TIMEOUT_S}")

    def _registration(self) -> bytes:
        name = report_name(self._settings.source).encode()
        account = b"\0\0"  # neither user nor password
        return (
            struct.pack("<IB", self._settings.server_id, len(name))
            + name
            + account
            + struct.pack("<HII", 0, 0, 0)
        )

    def _command(self, number: int, payload: bytes) -> None:
        self.connection._execute_command(number, payload)  # type: ignore[attr-defined]

    def _listen(self, *, heard: bool) -> None:
        """Notice that a server is silent; time in which nobody asked does not count.

        Raises:
            RetryableError: `mysql.silent`.
        """
        now = time.monotonic()
        if heard or now - self._asked_at > 1.0:
            self._heard_at = now
        self._asked_at = now
        if now - self._heard_at > SILENCE_S:
            raise RetryableError(
                "mysql.silent", f"not even a heartbeat for {SILENCE_S:.0f} s", where=self._where
            )

    def _ended(self, reason: str) -> WaxtapError:
        refusal = self._packets.refusal
        number, message = refusal if refusal is not None else (0, reason)
        return stream_error(number, message, self._where)
