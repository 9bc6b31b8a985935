"""An endpoint whose answers a test decides, and a webhook sink that delivers to it."""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from connectors.contracts.sink import SinkContext
from connectors.errors import WaxtapError
from connectors.webhook.network import resolve
from connectors.webhook.sink import WebhookSink
from connectors.webhook.spec import SinkSpec
from tests.contract.context import MemoryOffsets
from tests.contract.sink_log import SHARE, batches, change
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import OffsetStore, SinkWriter
    from connectors.webhook.network import Resolve

OK = Reply()


class Endpoint:
    """A receiver whose answers a test decides, and what came in, with the time.

    Attributes:
        decide: What is done about a request.
        came: When, and what.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.decide: Callable[[Request], Reply] = lambda _: OK
        self.came: list[tuple[float, Request]] = []
        self.receiver = Receiver(self._answer, tls)

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for _, request in self.came]

    def values(self) -> list[str]:
        return [event["data"]["after"]["value"] for event in self.events()]

    def events(self) -> list[dict[str, Any]]:
        told = [msgspec.json.decode(request.body) for _, request in self.came]
        return [event for each in told for event in (each if isinstance(each, list) else [each])]

    def _answer(self, request: Request) -> Reply:
        self.came.append((time.monotonic(), request))
        return self.decide(request)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.receiver.close()


class Target:
    """A sink for the endpoint, whose offsets live as long as the test."""

    def __init__(self, url: str, offsets: OffsetStore | None = None, **settings: object) -> None:
        tree = {
            "type": "webhook", "url": url, "allow_http": True, "allow_private": ["127.0.0.1/32"],
            **settings,
        }  # fmt: skip
        self.stop = threading.Event()
        self.resolver: Resolve = resolve
        self._spec = SinkSpec.model_validate(tree)
        self._context = SinkContext(self.stop, offsets or MemoryOffsets())

    def sink(self) -> WebhookSink:
        return WebhookSink("warehouse", self._spec, self._context, self.resolver)

    def open(self) -> closing[SinkWriter]:
        sink = self.sink()
        self.claim = sink.claim(SHARE)
        return closing(sink.open(self.claim))

    def write(self, writer: SinkWriter, log: Sequence[Delivered], size: int = 50) -> None:
        for batch in batches(self.claim, log, size):
            writer.write(batch)

    def stored(self) -> int:
        return min(self.sink().claim(SHARE).offsets.values())


def creates(first: int, count: int) -> list[Delivered]:
    return [change(n, "c", n, f"v{n}") for n in range(first, first + count)]


def refused(target: Target, log: Sequence[Delivered], kind: type[WaxtapError]) -> WaxtapError:
    """The error that ends the delivery of a log."""
    with target.open() as writer, pytest.raises(kind) as caught:  # noqa: PT012 - either may find out
        target.write(writer, log)
        writer.flush()
    return caught.value
