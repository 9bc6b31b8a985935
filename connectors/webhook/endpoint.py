"""The HTTP endpoint: judges each request, and answers 202 once it is stored for good.

Answers tell no more than the sender needs to know. Whatever is refused is refused before anything
is stored: 400, 401, 408, 413, 415 and 429. While requests cannot be stored, the answer is 503.
"""

from __future__ import annotations

import asyncio
import json
import time
from functools import cache, partial
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, cast

import structlog
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.errors import ConfigError, RetryableError
from connectors.metrics import requests
from connectors.webhook.http_server import HttpServer
from connectors.webhook.identity import HEALTH_HEADER, identify
from connectors.webhook.known_ids import KnownIds
from connectors.webhook.mapping import RequestMapping, UnmappableError
from connectors.webhook.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from connectors.contracts.inbox import Inbox, InboxWriter
    from connectors.webhook.source_spec import SourceSpec

log = structlog.get_logger()

_RETRY_AFTER = "2"
# What all requests together may hold in memory while they are read.
_MOST_BYTES = 128 * 1024 * 1024
# What is read of a body that is refused, so that the sender hears why.
_DRAIN_BYTES, _DRAIN_SECONDS = 8 * 1024 * 1024, 2.0
_LONGEST_HEADER = 1024


class RefusedError(Exception):
    """A request that is answered without being stored.

    Args:
        status: Of the answer.
        reason: What the sender is told.
        headers: Of the answer.
    """

    def __init__(
        self, status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


class Endpoint:
    """A running endpoint of a source; `close` ends it.

    Args:
        name: The source's name.
        spec: Its configuration.
        inbox: Where its requests are stored.

    Attributes:
        port: Where it listens.

    Raises:
        ConfigError: The configuration does not fit the servers.
        RetryableError: The inbox cannot be reached, or something else listens there.
    """

    def __init__(self, name: str, spec: SourceSpec, inbox: Inbox) -> None:
        self._writer = inbox.writer(spec.window, spec.max_backlog)
        try:
            check_size(spec, self._writer.max_body)
            self._told = {HEALTH_HEADER: identify(name, self._writer.created)}
            door = _Door(name, spec, self._writer)
            # An instance is taken as an ASGI application, which spares it Starlette's wrappings.
            routes = [
                Route(spec.path, cast("Callable[..., object]", door), methods=["POST"]),
                Route("/health", self._health, methods=["GET"]),
            ]
            app = _straight(spec.path, door, Starlette(routes=routes))
            self._server = HttpServer(app, door.busy, spec, self._writer.close)
        except BaseException:
            self._writer.close()
            raise
        self.port = self._server.port
        log.info("listening for requests", source=name, listen=spec.listen, path=spec.path)

    def check(self) -> None:
        """Raise FatalError if it has ended by itself."""
        self._server.check()

    def close(self) -> None:
        """Listen no more, store and answer what was accepted, and end. Never raises."""
        self._server.close()

    async def _health(self, _request: Request) -> Response:
        if await self._writer.ready():
            return Response(headers=self._told)
        return Response(
            status_code=HTTPStatus.SERVICE_UNAVAILABLE,
            headers={**self._told, "retry-after": _RETRY_AFTER},
        )


def _straight(path: str, door: ASGIApp, others: ASGIApp) -> ASGIApp:
    """`others`, but what is sent to `path` goes to the door at once.

    Starlette's middleware and routing cost as much as all that the door does.
    """

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        wanted = door if scope["path"] == path and scope["method"] == "POST" else others
        return wanted(scope, receive, send)

    return app


class _Door:
    """Judges the requests of one path, and has them stored."""

    def __init__(self, name: str, spec: SourceSpec, writer: InboxWriter) -> None:
        self._spec, self._writer = spec, writer
        self._count = cache(partial(requests.labels, name))
        self._verification = spec.verify.verification
        self._mapping = RequestMapping(spec.map, bounded=not spec.columns)
        rate = spec.rate
        self._rates = Rates(rate.requests, rate.per_client, rate.burst.total_seconds())
        self._known = KnownIds(spec.window.total_seconds())
        self._kept_names = spec.kept_headers
        # With the quotes, the colon and the comma.
        self._names_size = sum(len(name) + 6 for name in self._kept_names)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._take(scope, receive)
        except _GoneError:
            self._count("gone").inc()
            return
        except RefusedError as error:
            answer = error
        except RetryableError:
            answer = _not_now()
        else:
            self._count("202").inc()
            await send(_ACCEPTED)
            await send(_NO_BODY)
            return
        await self._answer(answer, scope, receive, send)

    async def busy(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request because there are too many connections."""
        answer = RefusedError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too many connections",
            {"retry-after": _RETRY_AFTER, **_CLOSE},
        )
        await self._answer(answer, scope, receive, send)

    async def _answer(
        self, answer: RefusedError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._count(str(answer.status.value)).inc()
        response = JSONResponse({"error": answer.reason}, answer.status, answer.headers)
        await response(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive) -> None:
        """Return once the request is stored."""
        now = time.monotonic()
        client: tuple[str, int] | None = scope["client"]
        if wait := self._rates.wait(client[0] if client else "", now):
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS, "too many requests", {"retry-after": f"{ceil(wait)}"}
            )
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._check_type(headers.get("content-type", ""))
        body = await self._body(headers, receive)
        if reason := self._verification.refusal(headers, body, time.time()):
            raise RefusedError(HTTPStatus.UNAUTHORIZED, reason, {"www-authenticate": "Bearer"})
        kept = self._kept(headers)
        identity = self._identity(headers)
        try:
            self._mapping.rows(body, kept)
        except UnmappableError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, error.message) from None
        if not identity:
            await self._writer.store(body, kept)
        elif not await self._known.settled(identity, now):
            stored = False
            try:
                await self._writer.store(body, kept, identity)
                stored = True
            finally:
                self._known.over(identity, stored=stored, now=time.monotonic())

    def _check_type(self, content_type: str) -> None:
        allowed = self._spec.content_types
        if allowed and content_type.partition(";")[0].strip().lower() not in allowed:
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type is not accepted"
            )

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """The whole body, unless it is too large, or there is no room for it."""
        announced, most = headers.get("content-length", ""), self._spec.max_body
        if announced.isdigit() and int(announced) > most:
            if "expect" not in headers:
                await _drain(receive)
            raise _too_large()
        parts: list[bytes] = []
        size, more = 0, True
        try:
            while more and size <= most:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                part: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(part)
                self._held += len(part)
                if self._held > _MOST_BYTES:
                    raise RetryableError("webhook.busy", "too many bodies are being read")
                parts.append(part)
        finally:
            self._held -= size
        if size > most:
            parts.clear()
            if more:
                await _drain(receive)
            raise _too_large()
        return b"".join(parts)

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        kept = {name: headers[name] for name in self._kept_names if name in headers}
        size = 0
        for value in kept.values():
            size += len(value)
            if len(value) > _LONGEST_HEADER:
                raise RefusedError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "a header that is stored is too long",
                )
        # Few are so large that they must be written to know: a character takes six bytes at most.
        most = self._writer.max_headers
        if 6 * (size + self._names_size) > most and len(json.dumps(kept)) > most:
            raise RefusedError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the headers that are stored are too large together",
            )
        return kept

    def _identity(self, headers: Mapping[str, str]) -> str:
        if self._spec.dedupe is None:
            return ""
        identity = headers.get(self._spec.dedupe.header, "")
        if not identity:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"the header {self._spec.dedupe.header} is missing"
            )
        return identity


class _GoneError(Exception):
    """The sender has hung up."""


_CLOSE = {"connection": "close"}
_ACCEPTED = {
    "type": "http.response.start",
    "status": HTTPStatus.ACCEPTED.value,
    "headers": [(b"content-length", b"0")],
}
_NO_BODY = {"type": "http.response.body", "body": b""}


def _not_now() -> RefusedError:
    return RefusedError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "requests cannot be stored at the moment",
        {"retry-after": _RETRY_AFTER},
    )


def check_size(spec: SourceSpec, most: int) -> None:
    """Raise ConfigError if larger bodies are allowed than the inbox takes."""
    if spec.max_body > most:
        raise ConfigError(
            "webhook.max_body",
            f"a message of the NATS server holds a body of at most {most} bytes",
            where="max_body",
            cure="lower max_body, or raise max_payload in the server's configuration",
        )


def _too_large() -> RefusedError:
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large", _CLOSE)


async def _drain(receive: Receive) -> None:
    """Read on for a while: a connection that is reset would take the answer with it."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
