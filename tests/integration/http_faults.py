"""An HTTP proxy before a server, which answers in the server's place where it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_HOP = {"connection", "content-length", "transfer-encoding", "host", "keep-alive"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    Attributes:
        kind: `status`: answered with it, the server sees nothing; `lost`: the server has it, the
            answer is lost; `reset`: neither; `silent`: nobody answers until the proxy ends.
        status: For `status`.
    """

    kind: Literal["status", "lost", "reset", "silent"]
    status: int = 0


@dataclass
class HttpFaults:
    """Forwards requests to `target`; the next ones whose path begins with `path` meet faults.

    Attributes:
        target: http://host:port.
        path: Which requests.
        faults: What they meet, in their order.
        rule: Asked when no fault is left: which fault this body meets.
    """

    target: str
    path: str = "/_bulk"
    faults: deque[Fault] = field(default_factory=deque)
    rule: Callable[[bytes], Fault | None] = field(default=lambda _body: None)

    def __post_init__(self) -> None:
        self.met = 0
        self._over = threading.Event()
        faults = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                faults._handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Nothing: the tests look at what the sink says."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is what tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        fault: Fault | None = None
        if handler.path.startswith(self.path):
            fault = self.faults.popleft() if self.faults else self.rule(body)
        self.met += fault is not None
        if fault is not None and fault.kind == "status":
            reason = {"type": "told_by_the_test", "reason": f"status {fault.status} as told"}
            answer = json.dumps({"error": reason, "status": fault.status}).encode()
            self._answer(handler, fault.status, {"content-type": "application/json"}, answer)
            return
        if fault is not None and fault.kind == "silent":
            self._over.wait()
        if fault is None or fault.kind == "lost":
            try:
                found = self._forward(handler, body)
            except (OSError, HTTPException):
                fault = Fault("reset")
            else:
                if fault is None:
                    self._answer(handler, *found)
                    return
        handler.close_connection = True
        with suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)

    def _forward(
        self, handler: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(self.target)
        connection = HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        try:
            headers = {k: v for k, v in handler.headers.items() if k.lower() not in _HOP}
            connection.request(handler.command, handler.path, body or None, headers)
            response = connection.getresponse()
            told = {k: v for k, v in response.getheaders() if k.lower() not in _HOP}
            return response.status, told, response.read()
        finally:
            connection.close()

    @staticmethod
    def _answer(
        handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        handler.send_response_only(status)
        if not any(name.lower() == "x-elastic-product" for name in headers):
            headers = {**headers, "X-elastic-product": "Elasticsearch"}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
