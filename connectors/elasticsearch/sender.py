"""Sends what is planned until the target has it, waiting out every transient failure."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import msgspec
from elasticsearch import ApiError

from connectors.backoff import doubled
from connectors.elasticsearch import bulk
from connectors.elasticsearch.client import FAILURES, ask, reason
from connectors.elasticsearch.indices import REINDEX
from connectors.elasticsearch.plan import Document, complete
from connectors.errors import PermanentError, RetryableError
from connectors.stopping import pause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elasticsearch import Elasticsearch

    from connectors.contracts.sink import Claim
    from connectors.elasticsearch.offsets import Bookkeeping
    from connectors.elasticsearch.plan import Truncate
    from connectors.trouble import Trouble

_Result = TypeVar("_Result")
_BACKOFF_S = (0.05, 10.0)
_PAGE = 5000
_SCROLL = "2m"


class _Found(msgspec.Struct):
    """What `_mget` says of a document."""

    found: bool = False
    error: dict[str, object] | None = None
    version: int = msgspec.field(name="_version", default=0)
    source: dict[str, msgspec.Raw] = msgspec.field(name="_source", default_factory=dict)


class _Answer(msgspec.Struct):
    docs: list[_Found]


class Closed(Exception):  # noqa: N818 - no failure: nobody waits for it
    """The writer has been closed."""


class Sender:
    """Used by several threads at once.

    Args:
        client: To the target.
        books: Asked before each request whether the claim still is the newest.
        claim: The right to write.
        trouble: Tells once that the target is in trouble.
        stop: Once set, transient failures are no longer waited for.
        closing: Once set, nothing is waited for.
        conflict: Which fields of an index do not take all values of their columns; empty: none.
        timed: Versions are times.
    """

    def __init__(
        self,
        client: Elasticsearch,
        books: Bookkeeping,
        claim: Claim,
        trouble: Trouble,
        stop: threading.Event,
        closing: threading.Event,
        conflict: Callable[[str], str],
        *,
        timed: bool,
    ) -> None:
        self._client, self._books, self._claim = client, books, claim
        self._conflict = conflict
        self._trouble, self._stop, self._closing = trouble, stop, closing
        self._timed = timed

    def patiently(self, action: Callable[[], _Result]) -> _Result:
        """Do it again and again until it does not fail for a transient reason.

        Raises:
            RetryableError: `elasticsearch.interrupted`: it failed, and `stop` was set.
            Closed: The writer has been closed.
        """
        attempts = 0
        who = object()
        try:
            while True:
                self._go_on()
                try:
                    result = action()
                except FAILURES as error:
                    told = reason(error)
                except RetryableError as error:
                    told = error.message
                else:
                    self._trouble.over(who)
                    return result
                self._go_on()
                attempts += 1
                self._trouble.failed(who, told)
                self._pause(attempts, told)
        finally:
            self._trouble.dropped(who)

    def send(self, documents: Sequence[Document]) -> None:
        """Return when the target has them, or newer ones.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: Some are refused; this is the one with the lowest sequence, the others
                are in its `also`, and all that are not refused are stored.
            GapError: The index knows more than the bookkeeping.
            RetryableError: As `patiently`.
        """
        left = list(documents)
        refused: dict[int, PermanentError] = {}

        def attempt() -> None:
            nonlocal left
            generation = self._books.check(self._claim)
            known = None if self._timed else generation
            verdict = self._bulk(left, known)
            left = verdict.again
            refused.update(verdict.refused)
            if left:
                raise RetryableError("elasticsearch.busy", verdict.reason)

        self.patiently(attempt)
        if refused:
            for document in documents:
                told = self._conflict(document.target) if document.sequence in refused else ""
                if told:
                    error = refused[document.sequence]
                    error.message += f"; {told}"
                    error.cure = f"{error.cure}; {REINDEX}"
            first, *others = (refused[sequence] for sequence in sorted(refused))
            first.also = tuple(others)
            raise first

    def completed(self, documents: Sequence[Document]) -> list[Document]:
        """Documents with what they lack taken from the target; those it has already are left out.

        Raises:
            RetryableError: As `patiently`.
        """
        wanted = [document for document in documents if document.missing]
        places = sorted({(document.target, document.origin) for document in wanted})
        wish = {"docs": [{"_index": target, "_id": id_} for target, id_ in places]}

        def look() -> dict[tuple[str, str], _Found]:
            answer = ask(self._client, "POST", "/_mget", wish)
            docs = msgspec.json.decode(answer.raw, type=_Answer).docs
            for doc in docs:
                if doc.error and doc.error.get("type") != "index_not_found_exception":
                    raise RetryableError("elasticsearch.busy", str(doc.error.get("reason")))
            return {place: doc for place, doc in zip(places, docs, strict=True) if doc.found}

        found = self.patiently(look)
        return [
            whole
            for document in documents
            if (whole := self._complete(document, found)) is not None
        ]

    def truncate(self, step: Truncate) -> None:
        """Delete every document of a lower version. Raises as `send`."""
        self.patiently(lambda: self._sweep(quote(step.index, safe=""), step))

    def _go_on(self) -> None:
        if self._closing.is_set():
            raise Closed

    def _complete(
        self, document: Document, found: dict[tuple[str, str], _Found]
    ) -> Document | None:
        if not document.missing or document.source is None:
            return document
        known = found.get((document.target, document.origin))
        if known is None:
            source = complete(document.source, document.missing, {})
            return document._replace(source=source, missing=())
        if known.version >= document.version and not self._timed:
            # Of the document itself: it is there. Of the one that it was: it had moved on before
            # that one became what it is.
            return None
        source = complete(document.source, document.missing, known.source)
        return document._replace(source=source, missing=())

    def _bulk(self, documents: list[Document], generation: int | None) -> bulk.Verdict:
        try:
            answer = ask(
                self._client,
                "POST",
                bulk.PATH,
                bulk.body(documents, timed=self._timed),
                kind=bulk.KIND,
            )
        except ApiError as error:
            if error.status_code not in (400, 413):
                raise
            if len(documents) == 1:
                told = bulk.refusal(documents[0], reason(error))
                return bulk.Verdict(refused={told.sequence: told})
            # The request is refused as a whole: for its size, or for one of them.
            middle = len(documents) // 2
            halves = [
                self._bulk(half, generation) for half in (documents[:middle], documents[middle:])
            ]
            return bulk.Verdict(
                again=[document for half in halves for document in half.again],
                reason=next((half.reason for half in halves if half.reason), ""),
                refused=halves[0].refused | halves[1].refused,
            )
        return bulk.judge(documents, answer, generation)

    def _sweep(self, index: str, step: Truncate) -> None:
        try:
            ask(self._client, "POST", f"/{index}/_refresh")
        except ApiError as error:
            if error.status_code == 404:
                return
            raise
        search = {"size": _PAGE, "sort": ["_doc"], "version": True, "_source": False}
        page = ask(self._client, "POST", f"/{index}/_search?scroll={_SCROLL}", search)
        try:
            while hits := page["hits"]["hits"]:
                gone = [
                    Document(hit["_index"], hit["_id"], step.version, step.sequence, index, None)
                    for hit in hits
                    if hit["_version"] < step.version
                ]
                for part in bulk.cut(gone):
                    self.send(part)
                following = {"scroll": _SCROLL, "scroll_id": page["_scroll_id"]}
                page = ask(self._client, "POST", "/_search/scroll", following)
        finally:
            self._forget(page["_scroll_id"])

    def _forget(self, scroll: str) -> None:
        try:
            ask(self._client, "DELETE", "/_search/scroll", {"scroll_id": scroll})
        except FAILURES:
            return  # it expires by itself

    def _pause(self, attempts: int, told: str) -> None:
        if not pause(doubled(attempts, *_BACKOFF_S), self._closing, self._stop):
            raise RetryableError(
                "elasticsearch.interrupted", f"stopped while the target was in trouble: {told}"
            )
        if self._closing.is_set():
            raise Closed
