"""One poll: the whole list is read, compared with what is known, and its outcome stored."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import msgspec
import structlog

from connectors.errors import GapError, RetryableError
from connectors.rest import names
from connectors.rest.api import Api
from connectors.rest.boundary import boundary
from connectors.rest.columns import Columns
from connectors.rest.envelope import NULL
from connectors.rest.expressions import decode
from connectors.rest.motion import Motion
from connectors.rest.outcome import VERSION, Found, Head, Validators
from connectors.rest.paging_spec import CursorSpec
from connectors.rest.question import question
from connectors.rest.records import later, order_of
from connectors.rest.schedule import delay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from connectors.rest.api import Reading
    from connectors.rest.ledger import Ledger
    from connectors.rest.outcome import Outcome
    from connectors.rest.records import Item, Order
    from connectors.rest.spec import RestSourceSpec

# In so many polls in a row a moving list may hide a record; then it is gone, or the cursor goes on.
_PATIENCE = 3

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Poller:
    """Polls one API. Used within one event loop.

    Args:
        source: The source's name.
        spec: Its configuration.
        accept: Losses that the owner has accepted.
        ledger: What is known.

    Attributes:
        columns: What the records have.
        polled: Whether a poll has succeeded.

    Raises:
        ConfigError: `rest.tls`.
    """

    def __init__(
        self,
        source: str,
        spec: RestSourceSpec,
        accept: Collection[str],
        ledger: Ledger,
    ) -> None:
        self._source, self._spec, self._accept = source, spec, accept
        self._ledger = ledger
        self.polled = False
        self._api = Api(source, spec)
        head = ledger.head
        self._question = question(spec)
        fitting = head is not None and ledger.fits(head)
        self.columns = Columns(spec.columns, head.columns if head else ())
        self._cursor = head.cursor if head and fitting else ""
        self._order: Order | None = head.order if head and fitting else None
        # What has not changed for another question says nothing for this one.
        same = head is not None and fitting and head.question == self._question
        self._validators = head.validators if head and same else Validators()
        self._farthest = (self._cursor, self._order)
        self._motion = Motion()
        # In how many polls the cursor was held back.
        self._held = 0

    async def close(self) -> None:
        """Let go of the connections."""
        await self._api.close()

    async def poll(self, began: datetime) -> Outcome | None:
        """Ask the API; returns what came of it, stored; None: nothing has changed.

        Args:
            began: The time, aware.

        Raises:
            RetryableError: The API, or the store, does not answer; nothing was lost.
            ConfigError: The API refuses, or its answers do not fit the configuration.
            GapError: `rest.too_many_deletions`.
            FatalError: `rest.bad_record`.
        """
        spec, comparison = self._spec, self._ledger.comparison
        comparison.begin()
        self._farthest = (self._cursor, self._order)
        since = self._since()
        self._motion.begin()
        reading = await self._api.read(since, self._validators, self._take)
        self.polled = True
        if not reading.pages:
            return None
        full = spec.mode == "full"
        validators, skipped = reading.validators, reading.skipped
        moved, doubtful = False, self._doubtful(reading)
        if doubtful:
            self._motion.between(comparison.seen)
            again = await self._api.read(since, Validators(), self._take)
            skipped |= again.skipped
            moved = max(reading.filled, again.filled) > 1 and self._motion.seen
            if again.validators != validators:
                # What is known now is what both have said.
                validators = Validators()
        # A record that has changed its page may be missed by both readings; the next poll finds it,
        # or the third.
        gone = 0
        if full:
            # One that was left out may be one that seems to be missing.
            certain = doubtful and not skipped
            gone = comparison.give_up((_PATIENCE if moved else 1) if certain else 0)
        else:
            self._hold(moved=moved)
        if gone:
            self._guard(gone)
        changes = gone + comparison.changed
        if not changes:
            self._validators = validators
            self._cursor, self._order = self._farthest
            return None
        # Another question has another answer.
        self._validators = validators if full else Validators()
        outcome = await self._store(began, changes)
        head = outcome.head
        self._cursor, self._order = head.cursor, head.order
        comparison.settle(from_cursor=head.from_order)
        return outcome

    def _hold(self, *, moved: bool) -> None:
        """Leave the cursor where it is if it would pass what both readings may have missed."""
        self._held = (self._held + 1) % _PATIENCE if moved else 0
        if self._held:
            self._farthest = (self._cursor, self._order)

    def _doubtful(self, reading: Reading) -> bool:
        """Whether records may be there that a reading has missed."""
        comparison = self._ledger.comparison
        if self._spec.mode == "full":
            return not reading.skipped and comparison.missing > 0
        # A record that changes meanwhile moves the others, one of them to a page that was read
        # already; the cursor would pass it. Only an API that goes on by a cursor of its own knows
        # where it was.
        by_place = not isinstance(self._spec.pagination, CursorSpec)
        return by_place and reading.filled > 1 and (comparison.changed > 0 or self._held > 0)

    def _take(self, items: list[Item]) -> None:
        self._motion.take(items)
        for item in self._ledger.comparison.add(items):
            self.columns.see(item.record)
        if self._spec.cursor is None:
            return
        for item in items:
            if item.order is not None and later(item.order, self._farthest[1]):
                self._farthest = (item.cursor, item.order)

    def _since(self) -> str:
        """What incremental mode asks for."""
        cursor = self._spec.cursor
        if cursor is None:
            return ""
        if self._order is None:
            return cursor.beginning
        return boundary(cursor, self._cursor, self._order).text

    async def _store(self, began: datetime, changes: int) -> Outcome:
        ledger = self._ledger
        number = ledger.number + 1
        cursor, order = self._farthest
        known_from = None
        if self._spec.cursor is not None and order is not None:
            # What the next poll asks for has to be known, or it would be told again.
            known_from = boundary(self._spec.cursor, cursor, order).order
        head = Head(
            version=VERSION,
            poll=number,
            at_ms=int(began.timestamp() * 1000),
            base="",
            delta=0,
            changes=changes,
            mode=self._spec.mode,
            columns=self.columns.known,
            cursor=cursor,
            order=order,
            from_order=known_from,
            validators=self._validators,
            question=self._question,
        )
        name = names.following(ledger.last, number)
        file = ledger.write(head, self._changes())
        failures = 0
        try:
            while True:
                try:
                    return ledger.append(file, name)
                except RetryableError as error:
                    failures += 1
                    if failures == 1:
                        _log.warning(
                            "what a poll has found cannot be stored yet, retrying",
                            source=self._source,
                            reason=str(error),
                        )
                    await asyncio.sleep(delay(failures))
        except BaseException:
            file.close()
            raise

    def _made(self, text: bytes) -> bool:
        """Whether a record was made since the last poll that found anything."""
        cursor, name = self._spec.cursor, self._spec.created_field
        record = decode(msgspec.Raw(text)) if name else None
        value = record.get(name) if isinstance(record, dict) else None
        if cursor is None or not isinstance(value, str | int) or isinstance(value, bool):
            return False
        try:
            return later(order_of(cursor, value), self._order)
        except ValueError:
            return False

    def _changes(self) -> Iterator[Found]:
        comparison = self._ledger.comparison
        full = self._spec.mode == "full"
        for key in comparison.deleted():
            yield Found("d", key, None, None, NULL)
        for found in comparison.found():
            if full:
                op = "u" if found.known else "c"
            else:
                op = "c" if not found.known and self._made(found.text) else "u"
            yield Found(op, found.key, found.hash, found.cursor, found.text)

    def _guard(self, missing: int) -> None:
        """Refuse to take an API that lacks most of its records for one that has deleted them."""
        comparison, last = self._ledger.comparison, self._ledger.number
        known = comparison.size
        if missing <= self._spec.max_deletions * known:
            return
        form = re.compile(rf"deletions:{re.escape(self._source)}@{last}-(\d+)")
        for given in self._accept:
            found = form.fullmatch(given)
            if found and missing <= int(found[1]):
                _log.warning(
                    "taking missing records for deleted, as accepted",
                    source=self._source,
                    missing=missing,
                    accepted=given,
                )
                return
        token = f"deletions:{self._source}@{last}-{missing}"
        raise GapError(
            "rest.too_many_deletions",
            f"{missing} of {known} known records are missing in the API's list, which has"
            f" {comparison.seen}; more than max_deletions ({self._spec.max_deletions:.0%}) allows",
            where="max_deletions",
            cure="look at the API; if they were deleted, go on with"
            f" `accept: [{token!r}]`; nothing was changed so far",
        )
