"""Stores batches together with their offset: one transaction for as many as it is given."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

import psycopg

from connectors.errors import FatalError, FencedError, PermanentError
from connectors.postgres.target import offsets, replayed
from connectors.postgres.target.apply import Applier
from connectors.postgres.target.collapse import Collapser
from connectors.postgres.target.history import History
from connectors.postgres.target.layout import Layout
from connectors.postgres.target.session import (
    Session,
    connect,
    is_transient,
    is_usable,
    refusal,
    roll_back,
)
from connectors.postgres.target.tables import Target
from connectors.subjects import stored_upto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from connectors.contracts import Batch, Claim, Delivered
    from connectors.postgres.spec import SinkSpec


class Store:
    """One claim's way into the target. Used by one thread.

    Attributes:
        session: The connection, while there is one.
        stored: Everything that was written up to this sequence is stored; any thread may read it.

    Args:
        spec: The target.
        claim: The right to write.
    """

    def __init__(self, spec: SinkSpec, claim: Claim) -> None:
        self._spec = spec
        self._claim = claim
        layout = Layout(spec)
        self._target = Target(spec, layout)
        self._applier = Applier(self._target)
        self._collapser = (
            History() if layout.append else Collapser(self._target.referenced, layout.deleted)
        )
        self._offsets = dict(claim.offsets)
        self.session: Session | None = None
        self.stored = 0

    def open(self) -> None:
        """Connect unless that has been done, and read what is stored.

        Raises:
            FencedError: A newer claim exists.
            FatalError: `postgres.target_behind`: the target has lost what it had stored.
            RetryableError: The target cannot be reached.
            psycopg.Error: The server refuses, or the connection was lost again.
        """
        if self.session is not None and is_usable(self.session):
            return
        self.close()
        self.session = connect(self._spec.dsn.get_secret_value(), self._claim.share.sink)
        found = offsets.register(self.session, self._claim)
        lost = [
            f"{subject}: {stored_upto(found, subject)} instead of {known}"
            for subject, known in self._offsets.items()
            if stored_upto(found, subject) < known
        ]
        if lost:
            # The reader has gone on behind them: only from its start it would give them again.
            raise FatalError(
                "postgres.target_behind",
                f"the target has lost transactions that it had committed ({'; '.join(lost)})",
                where=f"sink {self._claim.share.sink}",
                cure="start the flow again: it delivers them anew",
            )
        self._offsets = found

    def close(self) -> None:
        """Let go of the connection."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def write(self, batches: Sequence[Batch]) -> None:
        """Store batches whole: all of them in one transaction, or what can be, one by one.

        After a transient failure the same call may be repeated: what has been stored before it is
        known by its offset and left out.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: A change is refused; the batches before its own are stored.
            psycopg.Error: A transient failure.
        """
        upto = batches[-1].upto
        if any(stored < upto for stored in self._offsets.values()):
            changes = [change for batch in batches for change in self._new(batch.changes)]
            try:
                self._apply(changes, self._storing(upto), again=len(batches) == 1)
            except (PermanentError, psycopg.Error) as error:
                if len(batches) == 1 or (isinstance(error, psycopg.Error) and is_transient(error)):
                    raise
                for batch in batches:
                    self.write([batch])
                return
            for subject, stored in self._offsets.items():
                self._offsets[subject] = max(stored, upto)
        self.stored = max(self.stored, upto)

    def replay(self, letters: Sequence[Delivered]) -> None:
        """Store those letters that the target has not been given yet, in one transaction.

        After a transient failure the same call may be repeated.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: One is refused; none is stored.
            psycopg.Error: A transient failure.
        """
        changes = replayed.unknown(self._connected(), self._claim, letters)
        if changes:
            self._apply(
                changes,
                lambda session: replayed.remember(session, self._claim, changes),
                again=True,
            )

    def _new(self, changes: list[Delivered]) -> list[Delivered]:
        """Leave out what the subjects already have."""
        if not changes or changes[0].sequence > max(self._offsets.values()):
            return changes
        stored = {
            subject: stored_upto(self._offsets, subject)
            for subject in {change.subject for change in changes}
        }
        return [change for change in changes if change.sequence > stored[change.subject]]

    def _storing(self, upto: int) -> Callable[[Session], None]:
        return lambda session: offsets.store(session, self._claim, upto)

    def _apply(
        self, changes: list[Delivered], seal: Callable[[Session], None], *, again: bool
    ) -> None:
        """Apply changes and `seal` them in one transaction; `again`: one by one where need be."""
        try:
            self._transaction(changes, seal, one_by_one=False)
        except PermanentError:
            self._forget()
            raise
        except psycopg.Error as error:
            if is_transient(error):
                raise
            self._forget()
            if not again:
                raise
            # collapsed, rows may stand in each other's way where in their order they do not
            self._transaction(changes, seal, one_by_one=True)

    def _transaction(
        self, changes: list[Delivered], seal: Callable[[Session], None], *, one_by_one: bool
    ) -> None:
        session = self._connected()
        try:
            self._prepare(session, changes)
            session.execute(b"BEGIN; SET CONSTRAINTS ALL DEFERRED")
            offsets.hold(session, self._claim)
            if one_by_one:
                self._apply_each(session, changes)
            else:
                self._applier.apply(session, self._collapser.collapse(changes))
            seal(session)
            session.execute(b"COMMIT")
        except psycopg.Error as error:
            roll_back(session)
            if one_by_one and not is_transient(error) and changes:
                raise _refused_together(error, changes) from error
            raise
        except (PermanentError, FencedError):
            roll_back(session)
            raise

    def _prepare(self, session: Session, changes: Sequence[Delivered]) -> None:
        first = {c.table.hash: (c.sequence, c.table) for c in reversed(changes) if c.table}
        for sequence, table in sorted(first.values(), key=itemgetter(0)):
            try:
                self._target.prepare(session, table)
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

    def _apply_each(self, session: Session, changes: Iterable[Delivered]) -> None:
        for change in changes:
            try:
                self._applier.apply(session, self._collapser.collapse([change]))
            except psycopg.Error as error:
                table = change.table
                if is_transient(error) or table is None:
                    raise
                found = f", found by {', '.join(table.key)}," if table.key else ""
                raise refusal(
                    error,
                    f"sequence {change.sequence}{found} is refused",
                    f"{table.schema}.{table.name}",
                    change.sequence,
                ) from error

    def _connected(self) -> Session:
        if self.session is None:
            raise psycopg.InterfaceError("the session is closed")
        return self.session

    def _forget(self) -> None:
        """The target may have been changed since it was looked at."""
        self._target.forget()
        self._applier.forget()


def _refused_together(error: psycopg.Error, changes: Sequence[Delivered]) -> PermanentError:
    """The server's word at the end of a transaction, where it does not say whom it means."""
    first, last = changes[0].sequence, changes[-1].sequence
    table = changes[0].table
    where = f"{table.schema}.{table.name}" if table is not None else ""
    if error.diag.table_name:
        where = f"{error.diag.schema_name}.{error.diag.table_name}"
    if first == last:
        return refusal(error, f"sequence {first} is refused", where, first)
    return refusal(error, f"the sequences {first} to {last} are refused", where)
