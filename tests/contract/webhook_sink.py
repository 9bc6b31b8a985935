"""The webhook sink under the sink suite: its endpoint keeps rows, as a careful consumer does."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from standardwebhooks import Webhook

from connectors import registry
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.offsets import BUCKET, KvOffsets
from connectors.jetstream.spec import NatsSpec
from control.servers.ports import free_port
from tests.contract.context import sink_context
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.contracts.sink import Sink
    from control.servers.nats import NatsServer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Consumer:
    """Applies events to rows, each id once; refuses requests whose signature is wrong.

    Attributes:
        rows: Value by id.
        ids: Of the events, in the order in which they were applied.
        repeated: How many came more than once.
        overtaken: How many came for the first time behind a later change of their row.
        refused: Values that it answers 422 for.
    """

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}
        self.ids: list[str] = []
        self.repeated = self.overtaken = 0
        self.refused: set[str] = set()
        self._seen: set[str] = set()
        self._latest: dict[int, int] = {}
        self._webhook = Webhook(SECRET)
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        self._webhook.verify(request.body, request.headers, json_parse=False)
        if request.headers["content-type"] == "application/x-ndjson":
            events = [msgspec.json.decode(line) for line in request.body.splitlines()]
        else:
            told = msgspec.json.decode(request.body)
            events = told if isinstance(told, list) else [told]
        if any((event["data"]["after"] or {}).get("value") in self.refused for event in events):
            return Reply(422, body=b"no such value")
        with self._lock:
            for event in events:
                if event["id"] in self._seen:
                    self.repeated += 1
                else:
                    self._apply(event)
        return Reply()

    def _apply(self, event: dict[str, Any]) -> None:
        self._seen.add(event["id"])
        self.ids.append(event["id"])
        data = event["data"]
        if event["key"]:
            row, sequence = event["key"]["id"], int(event["id"].split("_")[2])
            self.overtaken += sequence < self._latest.get(row, 0)
            self._latest[row] = sequence
        assert event["type"] == f"db.items.{data['op']}"
        if data["op"] == "t":
            self.rows.clear()
        elif data["op"] == "d":
            self.rows.pop(event["key"]["id"], None)
        else:
            self.rows[data["after"]["id"]] = data["after"]["value"]


class WebhookSinkAdapter:
    """An endpoint of its own; the offsets lie in a bucket of a shared NATS."""

    transactional: ClassVar[bool] = False

    def __init__(self, server: NatsServer) -> None:
        self._nats = NatsSpec(url=(server.url,))
        self._consumer = Consumer()
        self._receiver = Receiver(self._consumer)
        self._running = True
        # the whole test's, so that it is not made anew for every offset
        self._connection = connect(self._nats)

    def sink(self) -> Sink:
        return self._sink(self._receiver.url)

    def unreachable(self) -> Sink:
        return self._sink(f"http://127.0.0.1:{free_port()}/?key=s3cret-word")

    def misconfigured(self) -> Mapping[str, Callable[[], Sink]]:
        return {
            "loopback": lambda: self._sink(self._receiver.url, allow_private=False),
            "certificate": lambda: self._sink(
                f"https://127.0.0.1:{self._receiver.port}", tls={"ca": "/no/such/file"}
            ),
        }

    def refuse(self, value: str) -> None:
        self._consumer.refused.add(value)

    def rows(self) -> dict[int, str]:
        return dict(self._consumer.rows)

    def cut_connections(self) -> None:
        self._receiver.cut()

    def kill_server(self) -> None:
        self._receiver.kill()
        self._running = False

    def start_server(self) -> None:
        self._receiver.start()
        self._running = True

    def close(self) -> None:
        self._receiver.close()
        if api.stream_info(self._connection, f"KV_{BUCKET}") is not None:
            api.call(self._connection, f"STREAM.DELETE.KV_{BUCKET}", None, dict)
        self._connection.release()

    def _sink(self, url: str, **settings: object) -> Sink:
        tree = {
            "type": "webhook",
            "url": url,
            "secrets": [SECRET],
            "headers": {"X-Tenant": "s3cret-word"},
            "allow_http": True,
            "allow_private": ["127.0.0.0/8"],
            **settings,
        }
        spec = registry.sink_spec("webhook").model_validate(tree)
        return registry.sink(
            "webhook", "warehouse", spec, sink_context(None, KvOffsets(self._nats))
        )
