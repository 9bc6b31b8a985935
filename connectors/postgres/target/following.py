"""How a table of the target follows its source under `schema_changes: add`, beyond new columns.

Each statement runs within a savepoint: where the server refuses it (a view depends on the column,
another role owns the table), the table stays as it is, and what does not fit it is told of by row.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import psycopg
import structlog

from connectors.postgres.server import one_line
from connectors.postgres.target import catalog, ddl
from connectors.postgres.target.session import is_transient
from connectors.postgres.target.widening import Widening, holds, widening

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg import sql

    from connectors.contracts.changes import TableSchema
    from connectors.postgres.target.catalog import Found
    from connectors.postgres.target.layout import Layout
    from connectors.postgres.target.session import Session

_log: structlog.stdlib.BoundLogger = structlog.get_logger("connectors.postgres.sink")

# A statement that waits for a lock holds up everybody who comes after it.
_LOCK_WAIT_MS = 3000
_NO_NULLS = "23502"
_MARK = "waxtap: key of "


class Retyped(NamedTuple):
    """A column that does not hold all values of its source's.

    Attributes:
        name: Of the column.
        found: Its type in the target.
        wanted: The type that holds them.
    """

    name: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"column {self.name} is {self.found}, and the source's needs {self.wanted}"


@contextmanager
def patience(session: Session) -> Iterator[None]:
    """Wait for locks for a short while only, within the open transaction."""
    names = (b"lock_timeout", b"statement_timeout")
    query = b"SELECT setting::int FROM pg_settings WHERE name = $1"
    before = [
        cast("tuple[int]", session.execute(query, (name.decode(),)).fetchone())[0] for name in names
    ]
    lock = min(before[0] or _LOCK_WAIT_MS, _LOCK_WAIT_MS)
    for name, value in zip(names, (lock, 0), strict=True):
        session.execute(b"SELECT set_config($1, $2, true)", (name.decode(), str(value)))
    yield
    # within a larger transaction they would stay
    for name, value in zip(names, before, strict=True):
        session.execute(b"SELECT set_config($1, $2, true)", (name.decode(), str(value)))


def retyped(
    session: Session, table: TableSchema, found: Found, layout: Layout
) -> tuple[Retyped, ...]:
    """The columns whose type does not hold all values of the source's."""
    narrow = []
    for column in table.columns:
        field = found.fields.get(column.name)
        if field is None or field.type in (column.type, "text"):
            continue
        wanted = ddl.type_of(session, column, layout.dialect(table, column))
        if not holds(field.type, wanted):
            narrow.append(Retyped(column.name, field.type, wanted))
    return tuple(narrow)


def widen(
    session: Session,
    table: TableSchema,
    found: Found,
    columns: Sequence[Retyped],
    max_rewrite: int,
) -> None:
    """Give columns the wider types that they need, where each stored value survives unchanged.

    Raises:
        psycopg.Error: A transient failure.
    """
    costs = {column: widening(column.found, column.wanted) for column in columns}
    wider = [column for column, cost in costs.items() if cost is not None]
    if not wider:
        return
    rewrites = any(costs[column] is Widening.REWRITE for column in wider)
    statement = ddl.retype(table, [(column.name, column.wanted) for column in wider])
    changed = "; ".join(f"{column.name} {column.found} → {column.wanted}" for column in wider)
    if rewrites and catalog.size(session, found) > max_rewrite:
        wider = [column for column in wider if costs[column] is Widening.IN_PLACE]
        _stays(session, table, statement, changed, "the table is larger than max_rewrite")
        if not wider:
            return
        statement = ddl.retype(table, [(column.name, column.wanted) for column in wider])
    refused = _tried(session, statement)
    if refused is not None:
        _stays(session, table, statement, changed, refused)
        return
    _log.info("columns_widened", table=f"{table.schema}.{table.name}", columns=changed)


def mark_key(session: Session, table: TableSchema, position: str) -> None:
    """Note at a primary key that the sink has made it, for which source and since when."""
    found = catalog.find(session, table)
    primary = found and catalog.primary_key(session, found)
    if primary:
        session.execute(ddl.comment_on_key(table, primary.name, _mark(table, position)))


def rekey(
    session: Session, table: TableSchema, found: Found, position: str, max_rewrite: int
) -> str:
    """Turn a primary key that the sink has made for an earlier shape into that of this one.

    Returns:
        Why it stays as it is; empty: it was changed.

    Raises:
        psycopg.Error: A transient failure.
    """
    primary = catalog.primary_key(session, found)
    source = f"{_MARK}{table.source} since "
    if primary is None or not primary.comment.startswith(source):
        return "the key is not one that the sink has made for this source"
    if position <= primary.comment.removeprefix(source):
        return "the change is older than the key that the table has now"
    if catalog.size(session, found) > max_rewrite:
        return "the table is larger than max_rewrite"
    refused = _tried(session, ddl.rekey(table, primary.name))
    if refused is not None:
        return refused
    mark_key(session, table, position)
    _log.info("primary_key_changed", table=f"{table.schema}.{table.name}", key=", ".join(table.key))
    return ""


def permit_null(session: Session, table: TableSchema, error: psycopg.Error) -> bool:
    """After a refused row: drop the NOT NULL of a column that the source does not have.

    Args:
        session: Inside a transaction that the error has left usable.
        table: The shape of the row, under the target's names.
        error: The refusal.

    Returns:
        Whether that was the cause, and it is gone.
    """
    column = error.diag.column_name
    place = (error.diag.schema_name, error.diag.table_name)
    if error.sqlstate != _NO_NULLS or not column or place != (table.schema, table.name):
        return False
    if any(each.name == column for each in table.columns):
        return False
    with patience(session):
        refused = _tried(session, ddl.permit_null(table, column))
    if refused is None:
        _log.info("not_null_dropped", table=f"{table.schema}.{table.name}", column=column)
    return refused is None


def _mark(table: TableSchema, position: str) -> str:
    return f"{_MARK}{table.source} since {position}"


def _tried(session: Session, statement: sql.Composed) -> str | None:
    """Why the server refuses it; None: it is done."""
    try:
        with session.transaction():
            session.execute(statement)
    except psycopg.Error as error:
        if is_transient(error):
            raise
        return one_line(error.diag.message_primary or str(error))
    return None


def _stays(
    session: Session, table: TableSchema, statement: sql.Composed, changed: str, reason: str
) -> None:
    _log.warning(
        "columns_not_widened",
        table=f"{table.schema}.{table.name}",
        columns=changed,
        reason=reason,
        cure=f"{statement.as_string(session)}; what does not fit until then becomes dead letters",
    )
