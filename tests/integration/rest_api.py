"""An API with a list of records in pages, whose answers go wrong where a test says so."""

from __future__ import annotations

import secrets
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from connectors import registry
from tests.contract.context import MemoryState, source_context
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Source, SourceReader

PATIENCE = 60.0


def ok(body: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(200, named, msgspec.json.encode(body))


@dataclass
class ListApi:
    """Answers `/items?page=<n>` with `size` records and the header `Link`.

    Attributes:
        rows: The records, by id.
        size: Of a page; 0: all on one.
        faults: What the next requests meet; None: nothing.
        before: Called with each request that meets no fault, before it is answered.
        requests: All that came.
    """

    rows: dict[int, dict[str, object]] = field(default_factory=dict)
    size: int = 0
    faults: deque[Reply | None] = field(default_factory=deque)
    before: Callable[[Request], Reply | None] = field(default=lambda _request: None)
    requests: list[Request] = field(default_factory=list)

    def put(self, *ids: int, **values: object) -> None:
        for number in ids:
            self.rows[number] = {**self.rows.get(number, {}), "id": number, **values}

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        fault = self.faults.popleft() if self.faults else self.before(request)
        if fault is not None:
            return fault
        query = parse_qs(urlsplit(request.target).query)
        rows = list(self.rows.values())
        if "since" in query:
            rows = [row for row in rows if str(row["at"]) >= query["since"][0]]
        if not self.size:
            return ok(rows)
        page = int(query.get("page", ["1"])[0])
        part = rows[(page - 1) * self.size : page * self.size]
        more = len(rows) > page * self.size
        return ok(part, link=f'<?page={page + 1}>; rel="next"') if more else ok(part)


class Polled:
    """A source that polls an API, and what it has told so far.

    Args:
        api: Answers it.
        tls: As in `Receiver`.
        settings: Of the source, beside the URL.
    """

    def __init__(
        self,
        api: Callable[[Request], Reply],
        tls: ssl.SSLContext | None = None,
        **settings: object,
    ) -> None:
        self.receiver = Receiver(api, tls)
        self._scheme = "https" if tls else "http"
        self.state = MemoryState()
        self.name = f"s{secrets.token_hex(4)}"
        self.accept: list[str] = []
        self.settings = settings
        self.checkpoint: Checkpoint | None = None
        self.changes: list[Change] = []
        self.goal: Checkpoint | None = None

    def source(self) -> Source:
        spec = registry.source_spec("rest").model_validate(
            {
                "type": "rest",
                "url": f"{self._scheme}://127.0.0.1:{self.receiver.port}/items",
                "allow_http": self._scheme == "http",
                "key": ["id"],
                "interval": "10ms",
                **self.settings,
            }
        )
        context = source_context(state=self.state, past=self.goal)
        return registry.source("rest", self.name, spec, self.accept, context)

    @contextmanager
    def reading(self) -> Iterator[SourceReader]:
        reader = self.source().open(self.checkpoint)
        try:
            yield reader
        finally:
            reader.close()

    def until(self, reader: SourceReader, condition: Callable[[], object]) -> list[Change]:
        """Read until the condition holds; returns what came."""
        first = len(self.changes)
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            chunk = reader.read()
            if chunk is not None:
                self.changes += chunk.changes
                self.checkpoint = chunk.checkpoint
        return self.changes[first:]

    def next(self, reader: SourceReader, count: int) -> list[tuple[str, int]]:
        """The next changes: op and id."""
        whole = len(self.changes) + count
        return told(self.until(reader, lambda: len(self.changes) >= whole))

    def close(self) -> None:
        self.receiver.close()


def told(changes: list[Change]) -> list[tuple[str, int]]:
    return [(change.op, msgspec.json.decode(change.key or "{}")["id"]) for change in changes]


def polls(api: ListApi, more: int) -> Callable[[], bool]:
    """Whether so many requests more have come."""
    whole = len(api.requests) + more
    return lambda: len(api.requests) >= whole


@pytest.fixture
def api() -> ListApi:
    return ListApi()


@pytest.fixture
def polled(api: ListApi) -> Iterator[Polled]:
    found = Polled(api)
    yield found
    found.close()
