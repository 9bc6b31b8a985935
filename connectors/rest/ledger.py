"""Keeps what polls found in a source's state store, and the comparison that stands behind it.

Every outcome names the whole state (`base`) that its delta is about. A new base is stored once the
deltas since the last one have cost as much as it does: that way a poll that finds three changes
among many records stores little, and so does going on after a restart.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, cast

import structlog
from msgspec.structs import replace

from connectors.errors import GapError
from connectors.rest import names
from connectors.rest.compare import Comparison, Entry
from connectors.rest.outcome import Outcome, write

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import BinaryIO

    from connectors.contracts.source import StateStore
    from connectors.rest.names import PollName
    from connectors.rest.outcome import Found, Head

_SPOOLED = 4 * 1024 * 1024

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Ledger:
    """The outcomes of one source. Used by one thread at a time.

    Args:
        source: The source's name.
        store: Its state.
        mode: How records are compared; what another mode has left is not compared with.
        question: What is asked; in incremental mode, what another question has left is not
            compared with either.

    Attributes:
        last: The last outcome; None: there is none yet.
        head: Its head.
        number: Of the last poll that had an outcome, also where that one is lost.
        pending: Outcomes that are stored but not handed on yet.
        begun: The outcome behind or inside which handing on begins; None: at the first one.
        comparison: What is known behind the last one.
    """

    def __init__(self, source: str, store: StateStore, mode: str, question: str) -> None:
        self._source, self._store = source, store
        self._mode, self._question = mode, question
        self._base = ""
        self._spent = 0
        # Of the outcomes that may have to be removed: the bases that they need.
        self._needs: dict[PollName, str] = {}
        self.last: PollName | None = None
        self.head: Head | None = None
        self.number = 0
        self.pending: list[PollName] = []
        self.begun: PollName | None = None
        self.comparison = Comparison()

    def fits(self, head: Head) -> bool:
        """Whether what an outcome tells is what is still looked for."""
        # Behind the cursor of one question there may be records of another one.
        same = self._mode == "full" or head.question in ("", self._question)
        return head.mode == self._mode and same

    def close(self) -> None:
        """Remove local files."""
        self.comparison.close()

    def open(self, resume: PollName | None, accept: Collection[str]) -> None:
        """Stand behind the outcomes that follow `resume`, which are still to be handed on.

        What neither it nor they need is removed.

        Raises:
            GapError: `rest.state_lost`: the outcome is gone, and that is not accepted.
            RetryableError: The store cannot be reached.
        """
        stored = self._store.names()
        start = resume
        if resume is not None and str(resume) not in stored:
            self._refuse_loss(resume, accept)
            self.number, start = resume.number, None
        self.begun = start
        self.pending = names.chain_after(start, stored, self.number)
        try:
            self._stand(start)
        except GapError:
            if resume is None:
                raise
            self._refuse_loss(resume, accept)
            self._forget(resume.number)
        self._clean(stored)

    def open_past(self, resume: PollName | None, goal: PollName) -> None:
        """As `open`, to repeat what was handed on already, up to `goal`; nothing is removed.

        Raises:
            GapError: `rest.state_lost`: one of the outcomes is gone.
            RetryableError: The store cannot be reached.
        """
        stored = self._store.names()
        way = names.chain_to(goal, resume, stored)
        if way is None or (resume is not None and str(resume) not in stored):
            raise _lost(str(resume or goal), self._source)
        self.begun, self.pending = resume, way

    def unfinished(self, index: int) -> list[PollName]:
        """The outcomes that are still to be handed on.

        Args:
            index: Of the last change of `begun` that was.
        """
        if self.begun is None or (
            self.begun is self.last and self.head is not None and index >= self.head.changes - 1
        ):
            return self.pending
        return [self.begun, *self.pending]

    def fetch(self, name: PollName) -> Outcome:
        """A stored outcome. Raises as `StateStore.get`, or GapError: it is damaged."""
        outcome = Outcome(self._get(str(name)), str(name))
        self._needs[name] = outcome.head.base
        return outcome

    def write(self, head: Head, changes: Iterable[Found]) -> BinaryIO:
        """Write the outcome of the comparison's poll into a file.

        Args:
            head: Of the outcome; what concerns the delta is filled in.
            changes: As many as the head says.
        """
        delta = self.comparison.delta_size
        full = replace(head, base=self._base, delta=delta, spent=self._spent + delta)
        file = tempfile.SpooledTemporaryFile(_SPOOLED)  # noqa: SIM115 - handed on
        try:
            write(cast("BinaryIO", file), full, self.comparison.delta(), changes)
        except BaseException:
            file.close()
            raise
        return cast("BinaryIO", file)

    def append(self, file: BinaryIO, name: PollName) -> Outcome:
        """Store an outcome that `write` wrote, to be handed on and then settled.

        Raises:
            RetryableError: It could not be stored now; the same call may be repeated.
        """
        file.seek(0)
        self._store.put(str(name), file)
        file.seek(0)
        outcome = Outcome(file, str(name))
        self.last, self.head, self.number = name, outcome.head, name.number
        self._spent = outcome.head.spent
        self._needs[name] = self._base
        return outcome

    def rebase(self) -> None:
        """Store a new base if the deltas have cost enough.

        Raises:
            RetryableError: It could not be stored now; that does no harm.
        """
        delta = self.comparison.delta_size
        if not delta or self._spent + delta < self.comparison.size:
            return
        name = names.base_name(self.number)
        with tempfile.SpooledTemporaryFile(_SPOOLED) as spooled:
            file = cast("BinaryIO", spooled)
            self.comparison.write_base(file)
            file.seek(0)
            self._store.put(name, file)
        self.comparison.base_stored()
        self._base, self._spent = name, 0

    def confirm(self, upto: PollName) -> None:
        """Remove what is needed no more once everything up to an outcome is stored for good.

        Raises:
            RetryableError: The store cannot be reached; what is left is removed later.
        """
        past = [name for name in self._needs if name.number < upto.number]
        for name in past:
            self._store.remove(str(name))
            base = self._needs.pop(name)
            if base and base != self._base and base not in self._needs.values():
                self._store.remove(base)

    def _stand(self, start: PollName | None) -> None:
        """Know what was known behind the last outcome."""
        last = self.pending[-1] if self.pending else start
        if start is not None and self.pending:
            # what it needs has to stay, as long as the stream may lead back to it
            self.fetch(start).close()
        if last is None:
            return
        with closing(self.fetch(last)) as outcome:
            head = outcome.head
            self.last, self.head, self.number = last, head, last.number
            if not self.fits(head):
                return
            if head.base:
                with closing(self._get(head.base)) as base:
                    self.comparison.close()
                    self.comparison = Comparison(base)
            self._base, self._spent = head.base, head.spent
            changes = (Entry(c.key, c.hash, c.cursor) for c in outcome.changes())
            self.comparison.patch(chain(outcome.delta(), changes))
            if head.from_order is not None:
                self.comparison.forget(head.from_order)

    def _forget(self, number: int) -> None:
        """Know nothing, behind a poll with this number."""
        self.comparison.close()
        self.comparison = Comparison()
        self.last = self.head = self.begun = None
        self.number, self.pending = number, []
        self._needs.clear()
        self._base, self._spent = "", 0

    def _clean(self, stored: Iterable[str]) -> None:
        keep = {str(name) for name in (self.begun, *self.pending) if name is not None}
        oldest = min((names.base_number(base) for base in self._needs.values()), default=0)
        base = self.head.base if self.head else ""
        for name in stored:
            number = names.base_number(name)
            if name in keep or (number >= oldest and (self.pending or name == base)):
                continue
            self._store.remove(name)

    def _get(self, name: str) -> BinaryIO:
        spooled = tempfile.SpooledTemporaryFile(_SPOOLED)  # noqa: SIM115 - handed on
        file = cast("BinaryIO", spooled)
        try:
            self._store.get(name, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def _refuse_loss(self, name: PollName, accept: Collection[str]) -> None:
        token = f"state:{self._source}@{name.number}"
        if token not in accept:
            raise _lost(str(name), self._source, token)
        _log.warning(
            "comparing with nothing, as accepted: every record comes once more",
            source=self._source,
            accepted=token,
        )


def _lost(name: str, source: str, token: str = "") -> GapError:
    return GapError(
        "rest.state_lost",
        "what the source knew of its records is gone: what was deleted since cannot be told",
        where=f"CDC_STATE_{source}/{name}",
        cure="restore the bucket from a backup"
        + (f", or let every record come once more with `accept: [{token!r}]`" if token else ""),
    )
