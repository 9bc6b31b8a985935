"""Brings changes into the target, inside the caller's transaction, and names those it refuses."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

import psycopg

from connectors.errors import PermanentError
from connectors.postgres.target.apply import Applier
from connectors.postgres.target.collapse import Collapser
from connectors.postgres.target.history import History
from connectors.postgres.target.layout import Layout
from connectors.postgres.target.session import is_transient, refusal
from connectors.postgres.target.tables import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.postgres.spec import SinkSpec
    from connectors.postgres.target.session import Session

# The class of SQLSTATEs about values that a type does not take.
_DATA = "22"


class Changer:
    """Applies changes; keeps what it learned about tables.

    Args:
        spec: The target.
    """

    def __init__(self, spec: SinkSpec) -> None:
        layout = Layout(spec)
        self._target = Target(spec, layout)
        self._applier = Applier(self._target)
        self._collapser = (
            History() if layout.append else Collapser(self._target.referenced, layout.deleted)
        )

    def forget(self) -> None:
        """The target may have been changed since it was looked at."""
        self._target.forget()
        self._applier.forget()

    def prepare(self, session: Session, changes: Sequence[Delivered]) -> None:
        """Make sure that the tables of the changes exist and fit.

        Inside of a transaction what is made becomes a part of it, and is to be forgotten with it.

        Raises:
            PermanentError: One does not; its first change is named.
            psycopg.Error: A transient failure.
        """
        first = {c.table.hash: (c.sequence, c.table, c) for c in reversed(changes) if c.table}
        for sequence, table, change in sorted(first.values(), key=itemgetter(0)):
            try:
                self._target.prepare(session, table, change.position)
            except PermanentError as error:
                error.sequence = sequence
                raise
            except psycopg.Error as error:
                if is_transient(error):
                    raise
                raise refusal(
                    error,
                    f"the table cannot be made ready for sequence {sequence}",
                    f"{table.schema}.{table.name}",
                    sequence,
                ) from error

    def entangled(self, changes: Iterable[Delivered]) -> bool:
        """Whether foreign keys of the target tie prepared tables of the changes to others."""
        return any(
            self._target.tied(c)
            for c in {c.table.hash: c.table for c in changes if c.table}.values()
        )

    def apply(self, session: Session, changes: Iterable[Delivered]) -> None:
        """Apply changes whose tables are prepared, collapsed.

        Raises:
            PermanentError: One cannot be read; it is named.
            psycopg.Error: From the server. If it is not transient, they may still be right one by
                one: collapsed, rows may stand in each other's way where in their order they do not.
        """
        self._applier.apply(session, self._collapser.collapse(changes))

    def apply_each(self, session: Session, changes: Iterable[Delivered]) -> None:
        """Apply changes one by one.

        Raises:
            PermanentError: Some are refused: the first of them, which names the others in `also`.
            psycopg.Error: A transient failure.
        """
        refused: list[PermanentError] = []
        session.execute(b"SAVEPOINT waxtap_change")
        for change in changes:
            try:
                self._apply_one(session, change)
            except (psycopg.Error, PermanentError) as error:
                refused.append(self._refused(change, error))
                session.execute(b"ROLLBACK TO SAVEPOINT waxtap_change")
            else:
                session.execute(b"RELEASE SAVEPOINT waxtap_change; SAVEPOINT waxtap_change")
        session.execute(b"RELEASE SAVEPOINT waxtap_change")
        if refused:
            first, *more = refused
            first.also = tuple(more)
            raise first

    def _apply_one(self, session: Session, change: Delivered) -> None:
        steps = self._collapser.collapse([change])
        try:
            self._applier.apply(session, steps)
        except psycopg.Error as error:
            if is_transient(error) or change.table is None:
                raise
            session.execute(b"ROLLBACK TO SAVEPOINT waxtap_change")
            if not self._target.mend(session, change.table, error):
                raise
            self._applier.apply(session, steps)

    def _refused(self, change: Delivered, error: psycopg.Error | PermanentError) -> PermanentError:
        table = change.table
        if isinstance(error, PermanentError):
            error.sequence = change.sequence
            return error
        if is_transient(error) or table is None:
            raise error
        found = f", found by {', '.join(table.key)}," if table.key else ""
        refused = refusal(
            error,
            f"sequence {change.sequence}{found} is refused",
            f"{table.schema}.{table.name}",
            change.sequence,
        )
        retyped, cure = self._target.retyped(table)
        if retyped and (error.sqlstate or "").startswith(_DATA):
            refused.message += f"; {'; '.join(map(str, retyped))}"
            refused.cure = f"{cure}; then `waxtap dlq replay`"
        refused.__cause__ = error
        return refused


def refused_together(error: psycopg.Error, changes: Sequence[Delivered]) -> PermanentError:
    """The server's word at the end of a transaction, where it does not say whom it means."""
    first, last = changes[0].sequence, changes[-1].sequence
    table = changes[0].table
    where = f"{table.schema}.{table.name}" if table is not None else ""
    if error.diag.table_name:
        where = f"{error.diag.schema_name}.{error.diag.table_name}"
    if first == last:
        return refusal(error, f"sequence {first} is refused", where, first)
    return refusal(error, f"the sequences {first} to {last} are refused", where)
