"""A paced writer: single-row transactions at a steady rate, each with the time it was sent."""

from __future__ import annotations

import threading
import time
from itertools import count
from types import TracebackType
from typing import Self

import psycopg
from psycopg import pq

from bench.backlog import TABLE
from bench.errors import FailedError

_CONNECTIONS = 4
_INSERT = f"""
insert into {TABLE} (id, quantity, title, created, price, attributes, active, token)
values ($1::bigint, 17, 'a paced row', clock_timestamp(), 12.34,
        '{{"color": "green", "weight": 1.5}}', true, gen_random_uuid())"""


class PacedWriter:
    """Inserts rows in the background until it is closed.

    Several connections take turns, so that a slow commit delays a quarter of the rows only. A row
    that is late is sent at once; `sent` then tells the true time.

    Args:
        dsn: Of the source database.
        rate: Rows per second over all connections.

    Attributes:
        sent: By id, the wall clock in seconds right before the row's `INSERT`, which commits by
            itself, was handed to the server.
    """

    def __init__(self, dsn: str, rate: int) -> None:
        self.sent: dict[int, float] = {}
        self._ids = count(1)
        self._stopping = threading.Event()
        self._errors: list[Exception] = []
        interval = _CONNECTIONS / rate
        start = time.monotonic()
        self._threads = [
            threading.Thread(
                target=self._run, args=(dsn, start + turn * interval / _CONNECTIONS, interval)
            )
            for turn in range(_CONNECTIONS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise FailedError when a row could not be written."""
        if self._errors:
            raise FailedError(f"the paced writer failed: {self._errors[0]}")

    def stop(self) -> None:
        """Send no more, and return once everything sent is committed."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self, dsn: str, first: float, interval: float) -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                self._insert(connection.pgconn, first, interval)
        except psycopg.Error as error:
            self._errors.append(error)

    def _insert(self, connection: pq.abc.PGconn, due: float, interval: float) -> None:
        # libpq's own calls: a cursor's work for each row would take CPU from what is measured.
        _require(connection.prepare(b"row", _INSERT.encode()))
        while not self._stopping.is_set():
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            number = next(self._ids)
            self.sent[number] = time.time()
            _require(connection.exec_prepared(b"row", [b"%d" % number]))
            due += interval


def _require(result: pq.abc.PGresult) -> None:
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
