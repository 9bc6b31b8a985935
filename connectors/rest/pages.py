"""From one page to the next. Free of I/O.

    Pages(spec, request).first() -> Request
    Pages.next(page) -> Request, or None behind the last page

A page that leads back to one that was read already is an error, never an end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from connectors.errors import ConfigError
from connectors.rest.expressions import Expression, ExpressionError
from connectors.rest.paging_spec import CursorSpec, LinkSpec, NextUrlSpec, OffsetSpec, PageSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from connectors.rest.expressions import Document
    from connectors.rest.paging_spec import PagingSpec, Place

# RFC 8288, section 3: `<target>; name=value; name="value"`, several with commas between.
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s=;,]+\s*(?:=\s*(?:"(?:[^"\\]|\\.)*"|[^\s";,]*))?)*)')
# What the HTTP client takes: no control characters, no blanks, and of no boundless length.
_URL = re.compile(r"[^\x00-\x20\x7f]{1,65536}")
_PARAMETER = re.compile(r';\s*([^\s=;,]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*)))?')


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        url: Without `query`, which is added to what it has.
        query: Parameters and their values; secrets.
        body: Sent as JSON; None: nothing is sent.
    """

    url: str = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    body: dict[str, JsonValue] | None = field(default=None, repr=False)

    def having(self, place: Place, **parameters: str | int) -> Request:
        """The same with further parameters."""
        if place == "query":
            return replace(self, query={**self.query, **{k: str(v) for k, v in parameters.items()}})
        return replace(self, body={**(self.body or {}), **parameters})


@dataclass(frozen=True, slots=True)
class Page:
    """An answer, as far as it tells where to go on.

    Attributes:
        url: Where it came from, after redirects.
        headers: Names in lower case.
        document: Its body.
        records: How many records it has.
    """

    url: str
    headers: Mapping[str, str]
    document: Document
    records: int


class Pages:
    """The pages of one poll.

    Args:
        spec: How the API divides its list.
        request: For the first page, as configured.
        most: More pages are an error.
    """

    def __init__(self, spec: PagingSpec, request: Request, most: int) -> None:
        self._spec, self._base, self._most = spec, request, most
        self._path = Expression(spec.path) if isinstance(spec, CursorSpec | NextUrlSpec) else None
        more = spec.more if isinstance(spec, CursorSpec) else ""
        self._more = Expression(more) if more else None
        self._seen: set[bytes] = set()
        self._number = self._skipped = 0

    def first(self) -> Request:
        """The request for the first page."""
        self._number = self._skipped = 0
        self._seen = set()
        return self._numbered()

    def next(self, page: Page) -> Request | None:
        """The request for the page behind `page`; None: it was the last one.

        Raises:
            ConfigError: `rest.loop`, `rest.too_many_pages`, `rest.foreign_page`,
                `rest.pagination`.
        """
        found = self._following(page)
        if found is None:
            return None
        self._number += 1
        if self._number >= self._most:
            raise ConfigError(
                "rest.too_many_pages",
                f"the list does not end within {self._most} pages",
                where="max_pages",
                cure="raise it, or ask for larger pages",
            )
        return found if isinstance(found, Request) else self._numbered()

    def _following(self, page: Page) -> Request | bool | None:
        spec = self._spec
        if isinstance(spec, LinkSpec):
            return self._followed(page, linked(page.headers.get("link", ""), spec.rel))
        if isinstance(spec, NextUrlSpec):
            return self._followed(page, self._text(page))
        if isinstance(spec, CursorSpec):
            return self._after_cursor(page, spec)
        # An API may give fewer than it is asked for: only an empty page is surely the last one.
        if not page.records:
            return None
        self._once(b"content", page.document.text)
        self._skipped += page.records
        return True

    def _after_cursor(self, page: Page, spec: CursorSpec) -> Request | None:
        if self._more is not None and not self._value(self._more, page):
            return None
        cursor = self._text(page)
        if not cursor:
            return None
        self._once(b"cursor", cursor.encode())
        return self._base.having(spec.place, **{spec.param: cursor})

    def _followed(self, page: Page, target: str) -> Request | None:
        if not target:
            return None
        try:
            url = urljoin(page.url, target)
            origin(url)
        except ValueError:
            url = ""
        if not _URL.fullmatch(url):
            raise ConfigError(
                "rest.pagination",
                "what leads to the next page is no URL",
                where="pagination",
                cure="correct `pagination`, or look at the API",
            )
        if not same_origin(url, self._base.url):
            raise ConfigError(
                "rest.foreign_page",
                f"the next page lies on another host: {origin(url)}",
                where="pagination",
                cure="credentials go to no other host; take the URL of the host that serves the"
                " list, or another kind of pagination",
            )
        self._once(b"url", url.encode())
        # What the first request had in its query is the API's to repeat.
        return Request(url, {}, self._base.body)

    def _numbered(self) -> Request:
        spec, base = self._spec, self._base
        if isinstance(spec, PageSpec):
            base = base.having(spec.place, **{spec.param: spec.start + self._number})
            return base.having(spec.place, **{spec.size_param: spec.size}) if spec.size else base
        if isinstance(spec, OffsetSpec):
            skipped = {spec.param: self._skipped, spec.limit_param: spec.limit}
            return base.having(spec.place, **skipped)
        return base

    def _text(self, page: Page) -> str:
        found = self._value(self._path, page) if self._path else None
        if found is None or isinstance(found, str):
            return found or ""
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        raise ConfigError(
            "rest.pagination",
            "what leads to the next page is neither a text nor a number",
            where="pagination",
            cure="correct `path`",
        )

    @staticmethod
    def _value(expression: Expression, page: Page) -> object:
        try:
            return expression.value(page.document)
        except ExpressionError as error:
            raise ConfigError(
                "rest.pagination", str(error), where="pagination", cure="correct the expression"
            ) from None

    def _once(self, kind: bytes, data: bytes | bytearray) -> None:
        digest = blake2b(data, digest_size=16, key=kind).digest()
        if digest in self._seen:
            raise ConfigError(
                "rest.loop",
                f"page {self._number + 1} leads back to, or is the same as, an earlier one",
                where="pagination",
                cure="the API ignores what it is asked for, or its list goes in a circle: correct"
                " `pagination`",
            )
        self._seen.add(digest)


def linked(header: str, relation: str) -> str:
    """The target of a `Link` header's entry for a relation (RFC 8288); empty: there is none."""
    for found in _LINK.finditer(header):
        for name, value in _parameters(found[2]):
            if name == "rel" and relation.lower() in value.lower().split():
                return found[1].strip()
    return ""


def origin(url: str) -> str:
    """Scheme, host and port, which is the scheme's own unless given."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port (RFC 6454)."""
    try:
        return origin(one) == origin(other)
    except ValueError:
        return False


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for found in _PARAMETER.finditer(text):
        quoted = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else None
        yield found[1].lower(), quoted if quoted is not None else found[3] or ""
