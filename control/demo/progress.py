"""How far source and target have come, and how long a change took from one to the other."""

from __future__ import annotations

import bisect
import threading
import time
from dataclasses import dataclass

import psycopg

_POLL_SECONDS = 0.004
_RETRY_SECONDS = 0.2
_PULSE = "SELECT changes FROM public.pulse WHERE writer = 1"


@dataclass(frozen=True, slots=True)
class Standing:
    """A moment of the demo.

    Attributes:
        committed: Changes that the source has committed.
        delivered: Changes that the target shows.
        behind_seconds: The age of the oldest commit that the target does not show yet; 0: none.
        latencies: Seconds from COMMIT to visible in the target, sorted; one for each transaction
            that was the newest one when the target was looked at.
    """

    committed: int
    delivered: int
    behind_seconds: float
    latencies: list[float]

    def percentile(self, share: float) -> float | None:
        """The latency that `share` of the samples do not exceed; None without samples."""
        if not self.latencies:
            return None
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Progress:
    """Joins the writer's commits with what a thread sees in the target's `pulse` table.

    The clock starts right before COMMIT is sent and stops when a query of the target, repeated
    every few milliseconds, shows the transaction: so every figure includes both.

    Args:
        dsn: The target's database.
        query: Asks it for the mark of the last transaction that it shows.
    """

    def __init__(self, dsn: str, query: str = _PULSE) -> None:
        self._dsn, self._query = dsn, query
        self._lock = threading.Lock()
        self._counts: list[int] = []
        self._times: list[float] = []
        self._written = 0
        self._committed = 0
        self._delivered = 0
        self._latencies: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def start(self) -> None:
        """Begin to look at the target."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def begin(self, changes: int) -> int:
        """Count a transaction's changes; returns the number of all so far, its mark in `pulse`."""
        self._written += changes
        return self._written

    def committing(self, upto: int) -> None:
        """The clock of the transaction with this mark starts."""
        with self._lock:
            self._counts.append(upto)
            self._times.append(time.monotonic())

    def committed(self, upto: int) -> None:
        """The transaction with this mark is committed."""
        with self._lock:
            self._committed = upto

    def standing(self) -> Standing:
        """How things stand now."""
        with self._lock:
            delivered = max(self._delivered, 0)
            oldest = bisect.bisect_right(self._counts, delivered)
            waiting = oldest < len(self._counts) and self._committed > delivered
            return Standing(
                committed=max(self._committed, delivered),
                delivered=delivered,
                behind_seconds=time.monotonic() - self._times[oldest] if waiting else 0.0,
                latencies=sorted(self._latencies),
            )

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    self._look(connection)
            except psycopg.Error:
                # The sink has not made the table yet, or the server is away; a server that stays
                # away is told by whoever watches over the processes.
                self._stop.wait(_RETRY_SECONDS)

    def _look(self, connection: psycopg.Connection[tuple[int | None]]) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            row = connection.execute(self._query.encode()).fetchone()
            now = time.monotonic()
            if row is None or row[0] in (None, self._delivered):
                continue
            with self._lock:
                self._delivered = row[0]
                place = bisect.bisect_left(self._counts, row[0])
                if place < len(self._counts) and self._counts[place] == row[0]:
                    self._latencies.append(now - self._times[place])
