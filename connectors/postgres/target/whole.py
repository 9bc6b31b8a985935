"""Stores the source's transactions whole: the target never commits in the middle of one.

One that goes on behind a batch stays open in the target, and its changes so far are kept on disk: a
session that is lost takes them back, and the next one is given them again. So is one from which the
session was taken for a while, so that no lock is held longer than needed: for a replay, or when
nothing follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus
from typing_extensions import override

from connectors.errors import FatalError, PermanentError
from connectors.postgres.target import offsets
from connectors.postgres.target.changer import refused_together
from connectors.postgres.target.runs import cut_at_keys
from connectors.postgres.target.session import is_transient, roll_back
from connectors.postgres.target.spool import Spool
from connectors.postgres.target.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Batch, Claim
    from connectors.postgres.spec import SinkSpec
    from connectors.postgres.target.session import Session


class WholeStore(Store):
    """One claim's way into a target that gets whole transactions; see `Store`."""

    def __init__(self, spec: SinkSpec, claim: Claim) -> None:
        super().__init__(spec, claim)
        self._spool = Spool()
        # The collapsed changes were refused: each piece may be taken back and applied one by one.
        self._careful = False

    @property
    @override
    def holding(self) -> bool:
        session = self.session
        return (
            session is not None
            and not session.closed
            and session.info.transaction_status is TransactionStatus.INTRANS
        )

    @override
    def rest(self) -> None:
        if self.session is not None:
            roll_back(self.session)
        self._changer.forget()  # tables that were made in the transaction are gone

    @override
    def close(self) -> None:
        if self.session is not None:
            self._changer.forget()
        super().close()

    @override
    def dispose(self) -> None:
        self.close()
        self._spool.close()

    @override
    def write(self, batches: Sequence[Batch]) -> None:
        done = max(batch.complete for batch in batches)
        changes = [change for batch in batches for change in self._new(batch.changes)]
        try:
            self._advance(changes, done)
        except (PermanentError, psycopg.Error) as error:
            self.rest()
            if isinstance(error, psycopg.Error) and is_transient(error):
                raise
            if isinstance(error, psycopg.Error) and not self._careful:
                self._careful = True
                self.write(batches)
                return
            if len(batches) > 1:
                for batch in batches:
                    self.write([batch])
                return
            if isinstance(error, psycopg.Error) and changes:
                raise refused_together(error, changes) from error
            raise
        except FatalError:
            self.rest()
            raise
        self.stored = max(self.stored, done)

    @override
    def replay(self, letters: Sequence[Delivered]) -> None:
        self.rest()
        super().replay(letters)

    def _advance(self, changes: list[Delivered], done: int) -> None:
        """Commit everything up to `done`, and begin what follows it."""
        session = self._connected()
        head = [change for change in changes if change.sequence <= done]
        tail = changes[len(head) :]
        if any(stored < done for stored in self._offsets.values()):
            self._begin(session)
            self._piece(session, head)
            offsets.store(session, self._claim, done)
            session.execute(b"COMMIT")
            self._count(done)
            self._spool.clear()
            self._careful = False
        if tail:
            self._begin(session)
            self._piece(session, tail)
            self._spool.add(tail)

    def _begin(self, session: Session) -> None:
        if self.holding:
            return
        session.execute(b"BEGIN; SET CONSTRAINTS ALL DEFERRED")
        offsets.hold(session, self._claim)
        for piece in self._spool.pieces():
            # a COMMIT whose answer was lost may have taken place
            self._piece(session, self._new(piece))

    def _piece(self, session: Session, changes: list[Delivered]) -> None:
        for run in cut_at_keys(changes):
            self._run(session, run)

    def _run(self, session: Session, changes: list[Delivered]) -> None:
        self._changer.prepare(session, changes)
        if not self._careful:
            self._changer.apply(session, changes)
            return
        session.execute(b"SAVEPOINT waxtap_piece")
        try:
            self._changer.apply(session, changes)
        except psycopg.Error as error:
            if is_transient(error):
                raise
            session.execute(b"ROLLBACK TO SAVEPOINT waxtap_piece")
            self._changer.apply_each(session, changes)
        session.execute(b"RELEASE SAVEPOINT waxtap_piece")
