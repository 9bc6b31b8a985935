"""The replication connection: a stream of CopyData messages and the status that goes back.

Protocol: PostgreSQL documentation, "Streaming Replication Protocol" and "Logical Streaming
Replication Parameters". psycopg makes the connection and runs the commands; from there on libpq's
non-blocking interface is used as it is, because psycopg has no reader for it.
"""

from __future__ import annotations

import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

import psycopg
from psycopg import pq

from connectors.errors import RetryableError
from connectors.postgres.conninfo import replication
from connectors.postgres.pgoutput.lsn import format_lsn
from connectors.postgres.pgoutput.streaming import parse_frame, standby_status
from connectors.postgres.replication.stream_errors import stream_error
from connectors.postgres.server import connection_failure, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.postgres.pgoutput.streaming import Keepalive

_XLOG_DATA = ord("w")
_MESSAGES_SINCE = 140000
# Fewer statuses than this apart would have the server and us answer one another without end: while
# it shuts down, it asks again at every answer that does not confirm everything.
_STATUS_INTERVAL_S = 0.1
_HEARTBEAT_S = 10.0
# What is decoded at once is in memory at once.
_DRAIN_BYTES = 1024 * 1024


class Received(NamedTuple):
    """What one `drain` found.

    Attributes:
        messages: Payloads of CopyData messages that begin with `w`, in order.
        keepalive: The keepalive that came behind them.
        more: False when the socket is empty.
    """

    messages: list[memoryview]
    keepalive: Keepalive | None
    more: bool


class ReplicationConnection:
    """One session that streams from a slot.

    A thread of its own sends the status every `min(wal_sender_timeout / 3, 10 s)`, so that the
    session outlives a worker that is held up elsewhere. The server reads statuses even while its
    own sending is blocked.

    Args:
        dsn: The user's connection string.
        source: The source's name.
        slot: The slot's name, for errors.

    Attributes:
        pid: The server process of the session.

    Raises:
        ConfigError: `postgres.dsn`, `postgres.login`.
        RetryableError: `postgres.unreachable`.
    """

    def __init__(self, dsn: str, source: str, slot: str) -> None:
        try:
            # Held for its `close`; everything after START_REPLICATION goes through `pgconn`.
            self._connection = psycopg.connect(replication(dsn, source), autocommit=True)
        except psycopg.OperationalError as error:
            raise connection_failure(error) from None
        self._pgconn = self._connection.pgconn
        # libpq forgets it when the connection breaks, which is when it is needed.
        self.pid = self._pgconn.backend_pid
        self._slot = slot
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._confirmed = 0
        self._told = -1
        self._status_at = 0.0
        self._owed = False

    def start(
        self, publications: Sequence[str], *, start: int, confirmed: int, messages: bool
    ) -> None:
        """Begin to stream.

        Args:
            publications: Their names.
            start: LSN from which transactions are wanted; the server never starts before the LSN
                that the slot has confirmed.
            confirmed: LSN up to which everything is stored for good.
            messages: Whether logical decoding messages are wanted (servers older than 14 cannot).

        Raises:
            WaxtapError: As `stream_error` says.
        """
        names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
        options = {"proto_version": "1", "publication_names": names}
        if messages and self._pgconn.server_version >= _MESSAGES_SINCE:
            options["messages"] = "true"
        # The walsender's own grammar knows plain string constants only, without E''.
        listed = ", ".join(
            f"{key} '{text.replace(chr(39), chr(39) * 2)}'" for key, text in options.items()
        )
        command = f'START_REPLICATION SLOT "{self._slot}" LOGICAL {format_lsn(start)} ({listed})'
        timeout_ms = self._run(b"SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'")
        self._run(command.encode())
        self._pgconn.nonblocking = 1
        self._confirmed = confirmed
        interval = int(timeout_ms.get_value(0, 0) or b"0") / 3000
        self._heartbeat = threading.Thread(
            target=self._beat,
            args=[min(interval or _HEARTBEAT_S, _HEARTBEAT_S)],
            name=f"waxtap-{self._slot}-status",
            daemon=True,
        )
        self._heartbeat.start()

    def drain(self, limit: int) -> Received:
        """Take what has arrived, without waiting.

        Ends after `limit` messages or 1 MiB, or at a keepalive.

        Raises:
            WaxtapError: The stream has ended, as `stream_error` says.
        """
        messages: list[memoryview] = []
        get = self._pgconn.get_copy_data
        with self._lock:
            try:
                reads = taken = 0
                while len(messages) < limit and taken < _DRAIN_BYTES:
                    size, data = get(1)
                    if size > 0:
                        if data[0] == _XLOG_DATA:
                            messages.append(data)
                            taken += size
                            continue
                        # `parse_frame` refuses everything else.
                        keepalive = cast("Keepalive", parse_frame(data))
                        self._owed = self._owed or keepalive.reply
                        return Received(messages, keepalive, more=True)
                    if size < 0:
                        raise self._ended()
                    # One read takes no more than libpq's buffer has room for, so that a large
                    # message needs many.
                    if reads and not self._poll.poll(0):
                        return Received(messages, None, more=False)
                    if reads > limit:
                        break
                    self._pgconn.consume_input()
                    reads += 1
                return Received(messages, None, more=True)
            except psycopg.OperationalError as error:
                raise RetryableError("postgres.connection_lost", one_line(str(error))) from None

    def wait(self, seconds: float) -> bool:
        """Wait for the server to send something; True when it has."""
        return bool(self._poll.poll(seconds * 1000))

    def confirm(self, lsn: int) -> None:
        """Note that everything up to `lsn` is stored for good; `answer` tells the server."""
        self._confirmed = max(self._confirmed, lsn)

    def answer(self) -> None:
        """Send the status if there is something new to say or the server has asked for it.

        Raises:
            RetryableError: `postgres.connection_lost`.
        """
        if not self._owed and self._told == self._confirmed:
            return
        if time.monotonic() - self._status_at < _STATUS_INTERVAL_S:
            return
        try:
            self._send_status()
        except psycopg.OperationalError as error:
            raise RetryableError("postgres.connection_lost", one_line(str(error))) from None

    def close(self) -> None:
        """Send a last status if the connection still takes one, and disconnect. Never raises."""
        self._stopped.set()
        if self._heartbeat is not None:
            # When it is broken already, the next session confirms the same again.
            with suppress(psycopg.OperationalError):
                self._send_status()
            self._heartbeat.join()
        self._connection.close()

    def _send_status(self) -> None:
        with self._lock:
            lsn = self._confirmed
            now_us = time.time_ns() // 1000
            self._pgconn.put_copy_data(
                standby_status(written=lsn, flushed=lsn, applied=lsn, now_us=now_us)
            )
            # What the socket does not take now goes with the next flush or read.
            self._pgconn.flush()
            self._told = lsn
            self._status_at = time.monotonic()
            self._owed = False

    def _beat(self, interval: float) -> None:
        while not self._stopped.wait(interval):
            try:
                self._send_status()
            except psycopg.OperationalError:
                # The reader meets the broken connection by itself and mends it.
                return

    def _run(self, command: bytes) -> pq.abc.PGresult:
        result = self._pgconn.exec_(command)
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COPY_BOTH):
            return result
        raise self._failure(result)

    def _ended(self) -> Exception:
        """Why the server ended the stream."""
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return self._failure(result)
        return RetryableError("postgres.connection_lost", "the server ended the stream")

    def _failure(self, result: pq.abc.PGresult) -> Exception:
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
        detail = result.error_field(pq.DiagnosticField.MESSAGE_DETAIL)
        text = ": ".join(
            part.decode(errors="replace") for part in (message, detail) if part is not None
        )
        return stream_error(
            (state or b"").decode(), one_line(text or result.get_error_message()), self._slot
        )
