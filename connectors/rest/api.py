"""Reads the whole of an API's list, page by page."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from connectors.errors import FatalError, RetryableError
from connectors.rest.auth import Credentials
from connectors.rest.expressions import Document
from connectors.rest.http import NOT_MODIFIED, Http
from connectors.rest.outcome import Validators
from connectors.rest.pages import Page, Pages, Request
from connectors.rest.records import BadRecordError, Records
from connectors.rest.refusals import LaterError, UnauthorizedError
from connectors.rest.schedule import delay

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.rest.http import Answer
    from connectors.rest.records import Item
    from connectors.rest.spec import RestSourceSpec

# A page that fails so often makes the poll fail, which then begins anew: a cursor may have expired.
_ATTEMPTS = 6
# So many records are taken apart before others get their turn.
_AT_ONCE = 500

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, once every page had come.

    Attributes:
        pages: How many; 0: the API says that nothing has changed.
        filled: How many of them had records.
        skipped: Whether records were left out, which have to be there then.
        validators: Of the only page.
    """

    pages: int
    filled: int
    skipped: bool
    validators: Validators


class Api:
    """A list of records behind an API. Used within one event loop.

    Args:
        source: The source's name, for the log.
        spec: How to ask.

    Raises:
        ConfigError: `rest.tls`.
    """

    def __init__(self, source: str, spec: RestSourceSpec) -> None:
        self._source, self._spec = source, spec
        self._http = Http(spec)
        self._credentials = Credentials(spec.auth, self._http)
        self._records = Records(spec)
        self._bad: Counter[str] = Counter()
        # Whoever starts a source wants to hear at once that there is no API.
        self._reached = False
        self._headers = {name: v.get_secret_value() for name, v in spec.headers.items()}

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close()

    async def read(
        self, since: str, known: Validators, take: Callable[[list[Item]], None]
    ) -> Reading:
        """Read the list to its end.

        Args:
            since: Asks for records from this cursor on; empty: for all.
            known: What the API may say about that nothing has changed.
            take: Given the records of each page, in parts.

        Raises:
            RetryableError: A page failed again and again.
            ConfigError: The API refuses, or its answers do not fit the configuration.
            FatalError: `rest.bad_record`.
        """
        pages = Pages(self._spec.pagination, self._request(since), self._spec.max_pages)
        request: Request | None = pages.first()
        count, filled, validators = 0, 0, Validators()
        self._bad.clear()
        while request is not None:
            answer, page = await self._page(request, known if count == 0 else Validators(), take)
            if page is None:
                return Reading(0, 0, skipped=False, validators=known)
            count += 1
            filled += page.records > 0
            validators = Validators(
                answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
            )
            request = pages.next(page)
        if self._bad:
            _log.warning("records are skipped", source=self._source, reasons=dict(self._bad))
        if count > 1:
            validators = Validators()
        return Reading(count, filled, skipped=bool(self._bad), validators=validators)

    async def try_first_page(self, since: str) -> None:
        """Ask for the first page as `read` does, once, and find the way to the next one.

        Args:
            since: As for `read`.

        Raises:
            RetryableError: There is no answer, or none that is of use now.
            ConfigError: The API refuses, or its answer does not fit the configuration.
            FatalError: `rest.bad_record`.
        """
        pages = Pages(self._spec.pagination, self._request(since), self._spec.max_pages)
        answer = await self._answer(pages.first(), Validators())
        if answer.status != NOT_MODIFIED:
            pages.next(await self._taken(answer, lambda _: None))

    def _request(self, since: str) -> Request:
        spec = self._spec
        query = {name: value.get_secret_value() for name, value in spec.query.items()}
        request = Request(spec.url.get_secret_value(), query, spec.body)
        if spec.cursor is not None and since:
            request = request.having(spec.cursor.place, **{spec.cursor.param: since})
        return request

    async def _page(
        self, request: Request, known: Validators, take: Callable[[list[Item]], None]
    ) -> tuple[Answer, Page | None]:
        """One page; what fails is repeated, and nothing of the others."""
        failures = 0
        while True:
            try:
                answer = await self._answer(request, known)
                self._reached = True
                if answer.status == NOT_MODIFIED:
                    return answer, None
                return answer, await self._taken(answer, take)
            except RetryableError as error:
                failures += 1
                self._reached |= isinstance(error, LaterError)
                if failures >= _ATTEMPTS or not self._reached:
                    raise
                if failures == 2:
                    _log.warning("a page fails, retrying", source=self._source, reason=str(error))
                after = error.after if isinstance(error, LaterError) else None
                await asyncio.sleep(delay(failures, after))

    async def _answer(self, request: Request, known: Validators) -> Answer:
        headers = dict(self._headers)
        if known.etag:
            headers["if-none-match"] = known.etag
        if known.modified:
            headers["if-modified-since"] = known.modified
        asked = replace(request, query={**request.query, **self._credentials.query})
        for again in (True, False):
            try:
                return await self._http.send(
                    asked, {**headers, **await self._credentials.headers()}
                )
            except UnauthorizedError:
                # A token may end before its time; another one is fetched, once.
                if not (self._credentials.refused() and again):
                    raise
        raise AssertionError("unreachable")

    async def _taken(self, answer: Answer, take: Callable[[list[Item]], None]) -> Page:
        document = Document(answer.body)
        records = self._records.of(document)
        items: list[Item] = []
        for record in records:
            try:
                items.append(self._records.item(record))
            except BadRecordError as error:
                self._skip(error)
            if len(items) == _AT_ONCE:
                take(items)
                items = []
                await asyncio.sleep(0)
        take(items)
        return Page(answer.url, answer.headers, document, len(records))

    def _skip(self, error: BadRecordError) -> None:
        if self._spec.on_bad_record == "skip":
            self._bad[str(error)] += 1
            return
        raise FatalError(
            "rest.bad_record",
            f"a record cannot be told from others: {error}",
            where="key",
            cure="correct `key` or `records`, or set `on_bad_record: skip`",
        )
