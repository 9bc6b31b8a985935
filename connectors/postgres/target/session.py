"""Connections to a target, and what its errors mean for a write.

SQLSTATE classes: PostgreSQL manual, Appendix A.
"""

from __future__ import annotations

import os

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format, TransactionStatus

from connectors.errors import ConfigError, PermanentError
from connectors.postgres.conninfo import ordinary
from connectors.postgres.server import connection_failure, one_line

Session = psycopg.Connection[tuple[object, ...]]

# A writer that was stopped inside a transaction may hold locks no longer than this.
IDLE_IN_TRANSACTION_S = 60
_JSON_OID = 114
_PREPARED_MAX = 500

_SETTINGS = {
    # how values are read that the source wrote under the same settings
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "iso_8601",
    "lc_monetary": "C",
    "xmloption": "content",
    # whatever the role's own defaults are
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
    # JSON parameters hide how many rows come: a plan made for an empty table must not stay
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
}
_SET = "; ".join(f"SET {name} = '{value}'" for name, value in _SETTINGS.items()).encode()

_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "57", "58"})
_TRANSIENT_STATES = frozenset(
    {
        "25P03",  # idle_in_transaction_session_timeout
        "25006",  # read_only_sql_transaction: a standby, until it is promoted
        "55006",  # object_in_use
        "55P03",  # lock_not_available
    }
)
# The function of the server that refuses who may not.
_RIGHTS = "aclcheck_error"
_CODES = {"22": "postgres.data", "23": "postgres.constraint", "44": "postgres.constraint"}


class Json:
    """A JSON document as a query's parameter, without a copy on its way."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _JsonDumper(Dumper):
    format = Format.TEXT
    oid = _JSON_OID

    def dump(self, obj: Json) -> Buffer:
        return obj.data


def connect(dsn: str, sink: str) -> Session:
    """Open a session in autocommit mode, its settings pinned, queries with `$1` parameters.

    Raises:
        ConfigError: `postgres.dsn`, or `postgres.login`: the server refuses these credentials.
        RetryableError: `postgres.unreachable`.
    """
    # search_path and timeouts stay the role's own: triggers of the target may rely on them
    conninfo = ordinary(dsn, sink)
    options = conninfo_to_dict(dsn).get("options", os.environ.get("PGOPTIONS", ""))
    try:
        session = psycopg.connect(
            make_conninfo(conninfo, options=options),
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
        )
    except psycopg.OperationalError as error:
        raise connection_failure(error) from None
    session.adapters.register_dumper(Json, _JsonDumper)
    session.prepare_threshold = 1
    session.prepared_max = _PREPARED_MAX
    try:
        session.execute(_SET)
    except psycopg.Error as error:
        session.close()
        raise connection_failure(error) from None
    return session


def is_transient(error: psycopg.Error) -> bool:
    """True if the same statement may succeed later: connection, deadlock, timeout, disk full."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES


def is_usable(session: Session) -> bool:
    """True if the session can take the next transaction."""
    idle = session.info.transaction_status is TransactionStatus.IDLE
    return idle and not session.closed


def roll_back(session: Session) -> None:
    """End a transaction that has failed; a session that cannot do so is closed."""
    if session.closed or session.info.transaction_status is TransactionStatus.IDLE:
        return
    try:
        session.execute(b"ROLLBACK")
    except psycopg.Error:
        session.close()  # the server rolls back when the connection ends


def refusal(error: psycopg.Error, what: str, where: str, sequence: int = 0) -> PermanentError:
    """The server's word on a change that it does not accept.

    Its `DETAIL` stays out, since it shows the row's values.

    Args:
        error: What it said.
        what: Which change, or changes, it is about.
        where: The table.
        sequence: Of the change, where it is known.

    Raises:
        ConfigError: The sink's role lacks a right: the change has nothing to do with that, and
            every other one would be refused as well.
    """
    state = error.sqlstate or ""
    code = "postgres.denied" if state == "42501" else _CODES.get(state[:2], "postgres.refused")
    names = {
        "constraint": error.diag.constraint_name,
        "column": error.diag.column_name,
        "SQLSTATE": state,
    }
    told = ", ".join(f"{label} {name}" for label, name in names.items() if name)
    message = one_line(error.diag.message_primary or str(error))
    # Policies and triggers use the same SQLSTATE about single rows.
    if state == "42501" and error.diag.source_function == _RIGHTS:
        raise ConfigError(
            code,
            f"{what}: {message}",
            where=where,
            cure="give the sink's role the rights that docs/postgres-sink.md lists, and start the "
            "sink again: it goes on with this change",
        )
    return PermanentError(
        code,
        f"{what}: {message}" + (f" ({told})" if told else ""),
        where=where,
        cure="mend the row or the target, then `waxtap dlq replay`; if the sink has stopped, start "
        "it again: it goes on with this change",
        sequence=sequence,
    )
