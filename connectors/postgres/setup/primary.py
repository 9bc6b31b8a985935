"""Where a source that reads from a standby writes: on the primary.

A standby takes nothing but its primary's log, so the publication is made on the primary, and what a
new slot on the standby waits for is asked for there.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from connectors.errors import ConfigError, RetryableError, WaxtapError
from connectors.postgres.server import Connection, connect, rows
from connectors.postgres.setup.preflight import system_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.postgres.setup.settings import Settings

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PATIENCE_S = 10.0
_POLL_S = 0.05
_ASK_EVERY_S = 0.2


@contextmanager
def primary(connection: Connection, settings: Settings) -> Iterator[Connection]:
    """A connection to where things can be made: `connection`, or one by `primary_dsn`.

    Raises:
        ConfigError: `postgres.other_primary`: they are not of one cluster; or as `connect`.
        RetryableError: The primary cannot be reached.
    """
    if not settings.primary_dsn:
        yield connection
        return
    with connect(settings.primary_dsn, settings.source) as writable:
        if system_identifier(writable) != system_identifier(connection):
            raise ConfigError(
                "postgres.other_primary",
                "`dsn` and `primary_dsn` lead to different database clusters",
                where=f"{settings.where}.primary_dsn",
                cure="give the primary of the standby that `dsn` leads to",
            )
        yield writable


def wait_replayed(writable: Connection, connection: Connection) -> None:
    """Return once a standby has replayed what its primary has written so far.

    Raises:
        RetryableError: `postgres.standby_behind`, or a connection broke.
    """
    if writable is connection:
        return
    ((end,),) = rows(writable, "SELECT pg_current_wal_insert_lsn()::text")
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        ((replayed,),) = rows(
            connection, "SELECT coalesce(pg_last_wal_replay_lsn() >= %s::pg_lsn, true)", end
        )
        if replayed:
            return
        if time.monotonic() > deadline:
            raise RetryableError(
                "postgres.standby_behind",
                f"the standby did not replay its primary's log up to {end}"
                f" within {_PATIENCE_S:.0f} s",
            )
        time.sleep(_POLL_S)


@contextmanager
def snapshots_logged(settings: Settings) -> Iterator[None]:
    """Meanwhile, the primary writes down which transactions run, which a new slot waits for.

    By itself it does so every 15 s, if anything happens. Who may not ask for it waits.
    """
    if not settings.primary_dsn:
        yield
        return
    stopped = threading.Event()
    thread = threading.Thread(target=_ask, args=[settings, stopped], daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(1.0)


def _ask(settings: Settings, stopped: threading.Event) -> None:
    try:
        with connect(settings.primary_dsn, settings.source) as writable:
            while not stopped.wait(_ASK_EVERY_S):
                rows(writable, "SELECT pg_log_standby_snapshot()")
    except WaxtapError as error:
        _log.info(
            "the new slot waits for the primary's next checkpoint",
            source=settings.source,
            reason=str(error),
            cure="GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO the role",
        )


def check_feedback(connection: Connection, settings: Settings) -> None:
    """Tell when a standby lets its primary remove rows that the slot needs.

    Raises:
        RetryableError: The connection broke.
    """
    ((endangered,),) = rows(
        connection,
        "SELECT pg_is_in_recovery() AND NOT current_setting('hot_standby_feedback')::bool",
    )
    if endangered:
        _log.warning(
            "the slot on the standby may be lost",
            source=settings.source,
            reason="hot_standby_feedback is off: the primary may remove rows of the catalog that"
            " decoding needs",
            cure="on the standby, hot_standby_feedback = on and a primary_slot_name",
        )
