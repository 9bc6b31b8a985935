"""One endpoint, and the connections over which requests go there: HTTP/1.1, kept alive.

A connection for each thread: httpx and httpcore cost several times the CPU time, and the pools and
locks of asynchronous clients multiply it (docs/webhook-sink.md has the figures).
"""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpcore

from connectors.errors import ConfigError
from connectors.webhook.answers import Answer, understand
from connectors.webhook.http1 import AnswerReader, MalformedAnswerError, request_head
from connectors.webhook.network import Dialler, resolve
from connectors.webhook.signatures import signature

if TYPE_CHECKING:
    from connectors.tls import TlsSpec
    from connectors.webhook.events import Message
    from connectors.webhook.network import Resolve, Stream
    from connectors.webhook.spec import SinkSpec

# A connection that has been idle for longer is not trusted any more, in seconds; of one that has
# rested for less, not even a look is taken: `send` copes with one that was closed meanwhile.
_IDLE = 20.0
_RESTED = 0.05

_FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    MalformedAnswerError,
)
# So much is read at once.
_READ = 64 * 1024


class UnansweredError(Exception):
    """No answer: whether the request has arrived is not known.

    Args:
        reason: Why, for people.
        stale: The connection had been used before: a server may have closed it meanwhile, which
            says nothing about the endpoint.
    """

    def __init__(self, reason: str, *, stale: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.stale = reason, stale


class Endpoint:
    """Where requests go, and what goes with each of them. Usable from any thread.

    Args:
        spec: The configuration.
        resolver: Turns a host into addresses.

    Raises:
        ConfigError: `webhook.tls`: certificates cannot be read.
    """

    def __init__(self, spec: SinkSpec, resolver: Resolve = resolve) -> None:
        parts = urlsplit(spec.url.get_secret_value())
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._target = target.encode()
        self.shown = spec.shown
        self.timeout = spec.timeout.total_seconds()
        self._connect_timeout = spec.connect_timeout.total_seconds()
        tls = _tls_context(spec.tls) if secure else None
        self._dialler = Dialler(host, port, tls, spec.allow_private, resolver)
        self._keys = spec.keys
        self._fixed = _fixed_headers(spec, parts.netloc)

    def dial(self) -> Stream:
        """Make a connection. Raises ConfigError as `Dialler.dial`, and UnansweredError."""
        try:
            return self._dialler.dial(self._connect_timeout)
        except _FAILURES as error:
            raise UnansweredError(_told(error)) from None

    def request(self, message: Message) -> bytes:
        """The bytes of an attempt that is made now."""
        now = int(time.time())
        headers = [
            *self._fixed,
            (b"content-length", b"%d" % len(message.body)),
            (b"content-type", message.content_type),
            (b"webhook-id", message.id.encode()),
            (b"webhook-timestamp", b"%d" % now),
        ]
        if self._keys:
            signed = signature(self._keys, message.id, now, message.body)
            headers.append((b"webhook-signature", signed.encode()))
        return request_head(self._target, headers) + message.body


class Line:
    """One connection to an endpoint, made when it is needed. Used by one thread at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stream: Stream | None = None
        self._used = 0.0

    def send(self, message: Message) -> Answer:
        """Send one request and return what was answered.

        Raises:
            UnansweredError: There was no answer.
            ConfigError: The endpoint's address is not allowed.
        """
        stream = self._stream
        if stream is not None and self._suspect(stream):
            self.close()
            stream = None
        fresh = stream is None
        if stream is None:
            stream = self._stream = self._endpoint.dial()
        try:
            return self._exchange(stream, message)
        except _FAILURES as error:
            self.close()
            # a timeout is none of a closed connection
            stale = not fresh and not isinstance(error, httpcore.TimeoutException)
            raise UnansweredError(_told(error), stale=stale) from None

    def _suspect(self, stream: Stream) -> bool:
        """Whether it has been idle long enough to look, and should not be used any more.

        What can be read while nothing is under way is the end of the connection, or not for us.
        """
        idle = time.monotonic() - self._used
        return idle > _IDLE or (idle > _RESTED and bool(stream.get_extra_info("is_readable")))

    def close(self) -> None:
        """Let go of the connection; `send` makes another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def hang_up(self) -> None:
        """Break the connection under a `send` in another thread."""
        stream = self._stream
        if stream is not None:
            stream.hang_up()

    def _exchange(self, stream: Stream, message: Message) -> Answer:
        stream.deadline = time.monotonic() + self._endpoint.timeout
        # An endpoint may answer, and hang up, before it has read all.
        with suppress(httpcore.WriteError):
            stream.write(self._endpoint.request(message))
        answer = AnswerReader()
        while not answer.complete:
            data = stream.read(_READ)
            if data:
                answer.feed(data)
            else:
                answer.end()
        if not answer.reusable:
            self.close()
        self._used = time.monotonic()
        return understand(answer.status, answer.headers, answer.body, datetime.now(UTC))


def _fixed_headers(spec: SinkSpec, host: str) -> list[tuple[bytes, bytes]]:
    own = {name.lower(): value.get_secret_value() for name, value in spec.headers.items()}
    try:
        product = f"waxtap/{version('waxtap')}"
    except PackageNotFoundError:
        product = "waxtap"
    fixed = {"host": host, "user-agent": product} | own
    if spec.auth and spec.auth.user:
        pair = f"{spec.auth.user}:{spec.auth.password.get_secret_value()}"
        fixed["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    elif spec.auth:
        fixed["authorization"] = f"Bearer {spec.auth.bearer.get_secret_value()}"
    return [(name.encode(), value.encode()) for name, value in fixed.items()]


def _tls_context(spec: TlsSpec) -> ssl.SSLContext:
    try:
        context = spec.context()
    except OSError as error:
        raise ConfigError(
            "webhook.tls",
            f"certificate files: {error}",
            where="tls",
            cure="`ca`, `cert` and `key` are files in PEM format that this user may read",
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _told(error: Exception) -> str:
    """The reason on one line; httpcore's timeouts come without words."""
    text = " ".join(str(error).split())
    if isinstance(error, httpcore.TimeoutException):
        return "no answer in time"
    return text or type(error).__name__
