"""Stores batches together with their offset: one transaction for as many as it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from connectors.errors import FatalError, PermanentError
from connectors.postgres.target import offsets, replayed
from connectors.postgres.target.changer import Changer, refused_together
from connectors.postgres.target.runs import cut_at_keys
from connectors.postgres.target.session import (
    Session,
    connect,
    is_transient,
    is_usable,
    roll_back,
)
from connectors.subjects import stored_upto

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Batch, Claim
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
        self._changer = Changer(spec)
        self._offsets = dict(claim.offsets)
        self._ahead = offsets.Ahead({})
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
        if self.session is not None and (self.holding or is_usable(self.session)):
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
        self._ahead = offsets.ahead(self.session, self._claim)

    def close(self) -> None:
        """Let go of the connection."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def dispose(self) -> None:
        """Let go of everything."""
        self.close()

    @property
    def sessions(self) -> list[Session]:
        """The connections that may be at work."""
        return [self.session] if self.session is not None else []

    @property
    def holding(self) -> bool:
        """Whether a transaction stays open in the target between two calls."""
        return False

    def rest(self) -> None:
        """Take such a transaction back for now, as nothing follows; it holds locks."""

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
            *before, last = cut_at_keys(changes) or [[]]
            again = len(batches) == 1
            try:
                for run in before:
                    self._apply(run, self._storing(run[-1].sequence), again=again)
                    self._count(run[-1].sequence)
                self._apply(last, self._storing(upto), again=again)
            except (PermanentError, psycopg.Error) as error:
                if len(batches) == 1 or (isinstance(error, psycopg.Error) and is_transient(error)):
                    raise
                for batch in batches:
                    self.write([batch])
                return
            self._count(upto)
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

    def _count(self, upto: int) -> None:
        for subject, stored in self._offsets.items():
            self._offsets[subject] = max(stored, upto)

    def _new(self, changes: list[Delivered]) -> list[Delivered]:
        """Leave out what the subjects already have."""
        if not changes:
            return changes
        highest = max(self._ahead.highest, *self._offsets.values())
        if changes[0].sequence > highest:
            return changes
        stored = {
            subject: stored_upto(self._offsets, subject)
            for subject in {change.subject for change in changes}
        }
        return [
            change
            for change in changes
            if change.sequence > stored[change.subject] and not self._ahead.has(change)
        ]

    def _storing(self, upto: int) -> Callable[[Session], None]:
        return lambda session: offsets.store(session, self._claim, upto)

    def _apply(
        self, changes: list[Delivered], seal: Callable[[Session], None], *, again: bool
    ) -> None:
        """Apply changes and `seal` them in one transaction; `again`: one by one where need be."""
        try:
            self._transaction(changes, seal, one_by_one=False)
        except (psycopg.Error, PermanentError) as error:
            if isinstance(error, psycopg.Error) and is_transient(error):
                raise
            self._changer.forget()
            if not again:
                raise
            # collapsed, rows may stand in each other's way where in their order they do not; and
            # of several that are refused all are told
            self._transaction(changes, seal, one_by_one=True)

    def _transaction(
        self, changes: list[Delivered], seal: Callable[[Session], None], *, one_by_one: bool
    ) -> None:
        session = self._connected()
        try:
            self._changer.prepare(session, changes)
            session.execute(b"BEGIN; SET CONSTRAINTS ALL DEFERRED")
            offsets.hold(session, self._claim)
            if one_by_one:
                self._changer.apply_each(session, changes)
            else:
                self._changer.apply(session, changes)
            seal(session)
            session.execute(b"COMMIT")
        except psycopg.Error as error:
            roll_back(session)
            if one_by_one and not is_transient(error) and changes:
                raise refused_together(error, changes) from error
            raise
        except (PermanentError, FatalError):
            roll_back(session)
            raise

    def _connected(self) -> Session:
        if self.session is None:
            raise psycopg.InterfaceError("the session is closed")
        return self.session
