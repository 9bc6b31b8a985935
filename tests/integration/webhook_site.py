"""A webhook source of one test, its endpoints, and requests to them."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.inbox import JetStreamInbox
from connectors.jetstream.spec import NatsSpec
from connectors.webhook.source import WebhookSource
from connectors.webhook.source_spec import SourceSpec
from tests.contract.context import MemoryState, source_context
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sized

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Chunk, SourceReader
    from connectors.webhook.endpoint import Endpoint
    from control.servers.nats import NatsServer

TOKEN = {"authorization": "Bearer right"}


class Site:
    """A source of its own on a server, and its endpoints."""

    def __init__(self, server: NatsServer, **settings: object) -> None:
        self.name = f"w{uuid4().hex[:8]}"
        self.nats = NatsSpec(url=(server.url,))
        self.state = MemoryState()
        self._settings = settings
        self._stack = ExitStack()

    def source(self, *accept: str, **settings: object) -> WebhookSource:
        given: dict[str, object] = {
            "type": "webhook",
            "listen": "127.0.0.1:0",
            "path": "/hooks",
            "serve": False,
            "verify": {"bearer": ["right"]},
        }
        spec = SourceSpec.model_validate(given | self._settings | settings)
        inbox = JetStreamInbox(self.nats, self.name)
        return WebhookSource(self.name, spec, accept, source_context(state=self.state, inbox=inbox))

    def serve(self, **settings: object) -> Endpoint:
        endpoint = self.source(**settings).serve()
        self._stack.callback(endpoint.close)
        return endpoint

    def stored(self) -> list[dict[str, object]]:
        """The bodies in the inbox, in order."""
        found = []
        stream = f"CDCIN_{self.name}"
        with connect(self.nats) as connection:
            info = api.stream_info(connection, stream)
            assert info is not None
            for sequence in range(max(info.state.first_seq, 1), info.state.last_seq + 1):
                message = api.message(connection, stream, sequence)
                assert message is not None
                found.append(json.loads(message.data))
        return found

    def changes(self, count: int, resume: Checkpoint | None = None) -> list[Change]:
        found: list[Change] = []

        def enough() -> bool:
            if (chunk := reader.read()) is not None:
                found.extend(chunk.changes)
            return len(found) >= count

        with closing(self.source().open(resume)) as reader:
            until(enough)
            assert not reader.read()
        return found

    def close(self) -> None:
        self._stack.close()
        JetStreamInbox(self.nats, self.name).remove()


@pytest.fixture
def site(nats_server: NatsServer) -> Iterator[Site]:
    made = Site(nats_server)
    yield made
    made.close()


def send(
    port: int,
    body: bytes = b'{"id":1}',
    headers: dict[str, str] | None = None,
    path: str = "/hooks",
    method: str = "POST",
) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, body, TOKEN | (headers or {}))
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read()


def grows(found: Sized, by: int = 1) -> None:
    """Return once there is so much more."""
    before = len(found)
    until(lambda: len(found) >= before + by)


def exchange(port: int, data: bytes, wait: float = 20.0) -> bytes:
    """Send raw bytes, and return everything until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def read_chunks(reader: SourceReader, count: int) -> list[Chunk]:
    """The next so many chunks."""
    found: list[Chunk] = []

    def enough() -> bool:
        if (chunk := reader.read()) is not None:
            found.append(chunk)
        return len(found) >= count

    until(enough)
    return found
