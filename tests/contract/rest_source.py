"""The REST source under the source suite."""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING, ClassVar

import msgspec

from connectors import registry
from connectors.rest.names import parse
from control.servers.ports import free_port
from tests.contract.context import MemoryState, source_context
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Source


class RestSourceAdapter:
    """An API of its own, whose list shows one transaction more at each poll.

    What is written between two polls is one change to a source that can only look. So that the
    suite can tell transactions apart, the list moves on whenever it is read.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("state deleted",)
    HOLDS_LOG: ClassVar[bool] = True

    def __init__(self, _server: object) -> None:
        self._name = f"s{secrets.token_hex(4)}"
        self._state = MemoryState()
        self._waiting: deque[dict[int, str]] = deque()
        self._rows: dict[int, str] = {}
        self._body = b"[]"
        self._api = Receiver(self._answer)

    def source(self) -> Source:
        return self._source("/items")

    def unreachable(self) -> Source:
        return self._source(f":{free_port()}/items?key=s3cret-word")

    def misconfigured(self) -> Mapping[str, Callable[[], Source]]:
        return {
            "status 401": lambda: self._source("/locked"),
            "status 404": lambda: self._source("/nowhere"),
            "no list": lambda: self._source("/items", records="nothing"),
            "larger than": lambda: self._source("/large", max_page=1024),
        }

    def lose_history(self, way: str) -> None:
        self._state.files.clear()

    def write(self, ids: Sequence[int]) -> None:
        self._waiting.append({number: f"v{number}" for number in ids})

    def abort(self, ids: Sequence[int]) -> None:
        """What is rolled back is never shown by an API."""

    def partly(self, kept: Sequence[int], undone: Sequence[int]) -> None:
        self.write(kept)

    def write_wide(self, ids: Sequence[int], size: int) -> None:
        self._waiting.append({number: secrets.token_hex(size // 2) for number in ids})

    def identify(self, change: Change) -> int:
        assert change.key is not None
        return int(msgspec.json.decode(change.key)["id"])

    def retained(self) -> int:
        polls = [name.number for name in map(parse, self._state.names()) if name]
        return min(polls, default=0)

    def kill_server(self) -> None:
        self._api.kill()

    def start_server(self) -> None:
        self._api.start()

    def close(self) -> None:
        self._api.close()

    def _source(self, path: str, **settings: object) -> Source:
        place = path if path.startswith(":") else f":{self._api.port}{path}"
        spec = registry.source_spec("rest").model_validate(
            {
                "type": "rest",
                "url": f"http://127.0.0.1{place}",
                "allow_http": True,
                "key": ["id"],
                "table": "items",
                "interval": "50ms",
                "max_page": "1GB",
                **settings,
            }
        )
        return registry.source("rest", self._name, spec, (), source_context(state=self._state))

    def _answer(self, request: Request) -> Reply:
        if request.target == "/locked":
            return Reply(401)
        if request.target == "/large":
            return Reply(200, body=b"[" + b" " * 4096 + b"]")
        if request.target != "/items":
            return Reply(404)
        if self._waiting:
            self._rows |= self._waiting.popleft()
            rows = [{"id": number, "value": value} for number, value in self._rows.items()]
            self._body = msgspec.json.encode(rows)
        return Reply(200, body=self._body)
