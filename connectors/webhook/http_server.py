"""Runs an ASGI application on uvicorn in a thread of its own, with limits that uvicorn lacks.

A Bytewax worker must not wait for the network, and its own work must not keep clients waiting
longer than Python's switching between threads does.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from connectors.errors import ConfigError, FatalError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from connectors.webhook.source_spec import SourceSpec

_HEAD_BYTES = 32 * 1024
_BACKLOG = 1024
_KEEP_ALIVE = 75
_IN_USE = errno.EADDRINUSE
# What a stopping server waits for requests that it has begun to read.
_DRAINING = 15


class PortInUseError(RetryableError):
    """Somebody else listens at the address."""


class HttpServer:
    """A server that listens; `close` ends it.

    Args:
        app: Answers the requests.
        busy: Answers those that come while there are `max_connections` already.
        spec: Where to listen, and the limits.
        ended: Called in the server's thread when everything has been answered.

    Attributes:
        port: Where it listens.

    Raises:
        ConfigError: The address or the certificate is of no use.
        RetryableError: Somebody else listens there.
    """

    def __init__(
        self, app: ASGIApp, busy: ASGIApp, spec: SourceSpec, ended: Callable[[], None]
    ) -> None:
        class Protocol(_LimitedProtocol):
            within = spec.timeout.total_seconds()
            most, idle_app, busy_app = spec.max_connections, staticmethod(app), staticmethod(busy)

        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_DRAINING,
            ssl_certfile=spec.tls.cert if spec.tls else None,
            ssl_keyfile=spec.tls.key if spec.tls else None,
        )
        with _certificate_faults():
            config.load()
        self._socket = _listen(spec)
        self.port: int = self._socket.getsockname()[1]
        self._server, self._ended = uvicorn.Server(config), ended
        self._thread = threading.Thread(target=self._run, name="waxtap-http", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise FatalError if the server has ended by itself."""
        if not self._thread.is_alive() and not self._server.should_exit:
            raise FatalError(
                "webhook.endpoint_died", "the endpoint ended unexpectedly; see the traceback"
            )

    def close(self) -> None:
        """Listen no more, answer what was accepted, and end. Never raises."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._ended()


class _LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which takes no request whose head is large or which comes too slowly.

    A request that comes in one piece, as nearly all do, needs no timer. The number of connections
    is not left to uvicorn, which does not tell those that it refuses when to come again.
    """

    within: float
    most: int
    idle_app: ASGIApp
    busy_app: ASGIApp

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._receiving = self._in_head = True
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.within, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._receiving = True
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._receiving and self._timer is None:
            self._timer = self.loop.call_later(self.within, self._too_slow)
        if self._in_head and self._head_bytes > _HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        self._receiving = self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        busy = len(self.connections) > self.most or len(self.tasks) > self.most
        self.app = self.busy_app if busy else self.idle_app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving, self._in_head = False, True
        self._stop_timer()
        super().on_message_complete()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        # None before the first request, whatever uvicorn's annotation says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
        self.transport.close()


def check_certificate(spec: SourceSpec) -> None:
    """Raise what a server would raise of its certificate."""
    if spec.tls is not None:
        with _certificate_faults():
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(spec.tls.cert, spec.tls.key)


def check_address(spec: SourceSpec) -> None:
    """Raise what a server would raise of its address; nobody can connect to it meanwhile."""
    with _address_faults(spec), socket.socket(_family(spec)) as trial:
        # As the server's own, which it does not keep from listening.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if trial.family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        trial.bind(spec.address)


def _listen(spec: SourceSpec) -> socket.socket:
    with _address_faults(spec):
        return socket.create_server(spec.address, family=_family(spec), backlog=_BACKLOG)


def _family(spec: SourceSpec) -> socket.AddressFamily:
    return socket.getaddrinfo(*spec.address, type=socket.SOCK_STREAM)[0][0]


@contextmanager
def _certificate_faults() -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "webhook.certificate",
            f"the certificate or its key cannot be used: {error.strerror or error}",
            where="tls",
            cure="name PEM files of a certificate and its key that this user may read",
        ) from None


@contextmanager
def _address_faults(spec: SourceSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, socket.gaierror) or error.errno != _IN_USE:
            raise ConfigError(
                "webhook.listen",
                f"cannot listen at {spec.listen}: {reason}",
                where="listen",
                cure="an address of this machine, and a port that this user may take",
            ) from None
        raise PortInUseError(
            "webhook.port_in_use",
            f"cannot listen at {spec.listen}: {reason}",
            where="listen",
            cure="end what listens there, or give the source another port",
        ) from None
