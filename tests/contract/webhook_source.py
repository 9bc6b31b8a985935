"""The webhook source under the source suite: real requests to a real endpoint."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar

import msgspec
from pydantic import SecretStr

from connectors import registry
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.inbox import JetStreamInbox
from connectors.jetstream.spec import NatsSpec
from connectors.webhook.source import WebhookSource
from connectors.webhook.source_spec import SourceSpec
from control.servers.ports import free_port
from tests.contract.context import MemoryState, source_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Source
    from connectors.webhook.endpoint import Endpoint
    from control.servers.nats import NatsServer

TOKEN = "the-right-token"
PATIENCE = 60.0


def post(
    port: int, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/"
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; returns status, headers (names in small letters) and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(
            "POST", path, body, {"authorization": f"Bearer {TOKEN}"} | dict(headers or {})
        )
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read()


class WebhookSourceAdapter:
    """An endpoint of its own; a request with a wrong token is what is rolled back elsewhere."""

    LOSSES: ClassVar[tuple[str, ...]] = ("inbox deleted", "inbox made again", "inbox purged")
    HOLDS_LOG: ClassVar[bool] = True

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._nats = NatsSpec(url=(server.url,))
        self._name = f"s{secrets.token_hex(4)}"
        self._inbox = JetStreamInbox(self._nats, self._name)
        self._state = MemoryState()
        self._endpoint: Endpoint | None = None

    def source(self) -> Source:
        return self._source()

    def unreachable(self) -> Source:
        nats = NatsSpec(
            url=(f"nats://127.0.0.1:{free_port()}",), user="u", password=SecretStr("s3cret-word")
        )
        return self._source(inbox=JetStreamInbox(nats, self._name))

    def misconfigured(self) -> Mapping[str, Callable[[], Source]]:
        return {
            "max_payload": lambda: self._source(serve=True, max_body="100MB"),
            "certificate": lambda: self._source(serve=True, tls={"cert": "/no", "key": "/none"}),
            "cannot listen": lambda: self._source(
                serve=True, listen="192.0.2.1:0", allow_http=True
            ),
        }

    def lose_history(self, way: str) -> None:
        stream = f"CDCIN_{self._name}"
        with connect(self._nats) as connection:
            if way == "inbox purged":
                api.call(connection, f"STREAM.PURGE.{stream}", None, dict)
                return
        self._inbox.remove()
        if way == "inbox made again":
            self._stop()
            self.write([1, 2, 3])

    def write(self, ids: Sequence[int]) -> None:
        self._send([{"id": number, "value": f"v{number}"} for number in ids])

    def abort(self, ids: Sequence[int]) -> None:
        body = json.dumps({"rows": [{"id": number} for number in ids]}).encode()
        status, _, _ = post(self._port, body, {"authorization": "Bearer the-wrong-token"})
        assert status == 401

    def partly(self, kept: Sequence[int], undone: Sequence[int]) -> None:
        self.abort(undone)
        self.write(kept)

    def write_wide(self, ids: Sequence[int], size: int) -> None:
        for number in ids:
            self._send([{"id": number, "value": secrets.token_hex(size // 2)}])

    def identify(self, change: Change) -> int:
        assert change.key is not None
        return int(msgspec.json.decode(change.key)["id"])

    def retained(self) -> int:
        with connect(self._nats) as connection:
            info = api.stream_info(connection, f"CDCIN_{self._name}")
        assert info is not None
        return info.state.first_seq

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()

    def close(self) -> None:
        if not self._server.running:
            self._server.start()
        self._stop()
        self._inbox.remove()

    @property
    def _port(self) -> int:
        if self._endpoint is None:
            self._endpoint = self._source().serve()
        return self._endpoint.port

    def _send(self, rows: list[dict[str, object]]) -> None:
        """As a good sender does: again and again while it is told to come back."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status, headers, told = post(self._port, json.dumps({"rows": rows}).encode())
            if status == 202:
                return
            assert status == 503, told
            assert int(headers["retry-after"]) > 0
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _source(self, inbox: JetStreamInbox | None = None, **settings: object) -> WebhookSource:
        given = {
            "type": "webhook",
            "listen": "127.0.0.1:0",
            "serve": False,
            "verify": {"bearer": [TOKEN]},
            "max_body": "900KiB",
            "map": {"records": "body.rows"},
        }
        spec = registry.source_spec("webhook").model_validate(given | settings)
        assert isinstance(spec, SourceSpec)
        context = source_context(state=self._state, inbox=inbox or self._inbox)
        source = registry.source("webhook", self._name, spec, (), context)
        assert isinstance(source, WebhookSource)
        return source
