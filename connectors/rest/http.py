"""Requests to an API, one answer at a time, and what their failures mean.

What may succeed later is a `RetryableError`: no connection, a timeout, an answer that was cut off,
a status that `refusals` takes for passing, a body that is not JSON. Every other refusal is a
`ConfigError`. Messages name the host alone: path and query may hold secrets.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx

from connectors.errors import ConfigError, RetryableError
from connectors.json_text import product_version
from connectors.rest.expressions import Document
from connectors.rest.inflating import ACCEPTED, EncodingError, Inflating, TooLargeError
from connectors.rest.pages import same_origin
from connectors.rest.refusals import refusal, too_large

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.rest.pages import Request
    from connectors.rest.spec import RestSourceSpec

NOT_MODIFIED = 304
_REDIRECTS = (301, 302, 303, 307, 308)
_OF_THE_BODY = ("content-length", "content-type", "host")
_MOST_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer, or one that says that nothing has changed.

    Attributes:
        url: Where it came from, after redirects.
        status: 2xx or 304.
        headers: Names in lower case.
        body: Decompressed; empty for 304.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytearray


@dataclass(frozen=True, slots=True)
class _Redirect:
    """An answer that names another URL."""

    status: int
    target: str


class Http:
    """Speaks with one API. Used within one event loop.

    Args:
        spec: Timeouts, limits and TLS.

    Raises:
        ConfigError: `rest.tls`.
    """

    def __init__(self, spec: RestSourceSpec) -> None:
        for name in ("httpx", "httpcore"):
            # They log URLs and headers, which may hold secrets.
            logging.getLogger(name).setLevel(logging.WARNING)
        self._shown, self._method = spec.shown, spec.method
        self._most, self._total = spec.max_page, spec.timeout.total_seconds()
        self._client = httpx.AsyncClient(
            verify=tls_context(spec),
            timeout=httpx.Timeout(
                spec.read_timeout.total_seconds(), connect=spec.connect_timeout.total_seconds()
            ),
            headers={
                "accept": "application/json",
                "accept-encoding": ACCEPTED,
                "user-agent": f"waxtap/{product_version()}",
            },
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send a request and read its answer, within `timeout` and `max_page`.

        Raises:
            LaterError, RetryableError: The same request may succeed later.
            UnauthorizedError: Status 401.
            ConfigError: Refused for good.
        """
        try:
            url = httpx.URL(request.url)
            if request.query:
                # An URL that the API has made stays as it is, where that can be.
                url = url.copy_merge_params(dict(request.query))
            made = self._client.build_request(
                self._method, url, headers=dict(headers), json=request.body
            )
        except (httpx.InvalidURL, UnicodeError):
            raise ConfigError(
                "rest.pagination",
                "what leads to the next page is no URL that can be asked",
                where="pagination",
                cure="correct `pagination` and `query`, or look at the API",
            ) from None
        for _ in range(_MOST_REDIRECTS + 1):
            answer = await self._exchange(made)
            if isinstance(answer, Answer):
                return answer
            made = self._redirected(made, answer.target, keeps=answer.status in (307, 308))
        raise ConfigError(
            "rest.redirects",
            f"{self._shown} redirects more than {_MOST_REDIRECTS} times",
            where="url",
            cure="take the URL that serves the list",
        )

    async def form(
        self, url: str, fields: Mapping[str, str], auth: tuple[str, str] | None
    ) -> object:
        """Post a form and return the JSON of its answer. Raises as `send`; no redirects.

        Args:
            url: Where to.
            fields: What is sent.
            auth: User and password for basic authentication; None: none.
        """
        made = self._client.build_request("POST", url, data=dict(fields))
        if auth is not None:
            made.headers["authorization"] = basic(*auth)
        answer = await self._exchange(made)
        if not isinstance(answer, Answer):
            raise ConfigError("rest.redirects", "the token URL redirects", where="auth")
        try:
            return Document(answer.body).decoded
        except RetryableError as error:
            raise RetryableError("rest.token", error.message, where="auth") from None

    async def _exchange(self, request: httpx.Request) -> Answer | _Redirect:
        try:
            async with asyncio.timeout(self._total):
                response = await self._client.send(request, stream=True)
                try:
                    return await self._read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise RetryableError(
                "rest.timeout", f"{self._shown} does not answer within {self._total:g} s"
            ) from None
        except httpx.TimeoutException as error:
            kind = type(error).__name__
            raise RetryableError("rest.timeout", f"{self._shown}: {kind}") from None
        except httpx.LocalProtocolError as error:
            # It may show a header's value.
            kind = type(error).__name__
            raise RetryableError("rest.connection", f"{self._shown}: {kind}") from None
        except httpx.TransportError as error:
            told = str(error) or type(error).__name__
            raise RetryableError("rest.connection", f"{self._shown}: {told}") from None

    async def _read(self, response: httpx.Response) -> Answer | _Redirect:
        status, url = response.status_code, str(response.url)
        headers = {name.lower(): value for name, value in response.headers.items()}
        if status in _REDIRECTS:
            try:
                return _Redirect(status, urljoin(url, headers.get("location", "")))
            except ValueError:
                return _Redirect(status, "")
        if status == NOT_MODIFIED:
            return Answer(url, status, headers, bytearray())
        if not response.is_success:
            raise refusal(self._shown, status, headers)
        if (length := headers.get("content-length", "")).isdigit() and int(length) > self._most:
            raise too_large(self._most)
        try:
            answer = Inflating(headers.get("content-encoding", ""), self._most)
            # Not decompressed by the client, which knows no limit.
            async for part in response.aiter_raw():
                answer.add(part)
            answer.end()
        except TooLargeError:
            raise too_large(self._most) from None
        except EncodingError as error:
            raise RetryableError("rest.encoding", f"an answer of {self._shown}: {error}") from None
        return Answer(url, status, headers, answer.body)

    def _redirected(self, request: httpx.Request, target: str, *, keeps: bool) -> httpx.Request:
        if not same_origin(str(request.url), target):
            raise ConfigError(
                "rest.redirects",
                f"{self._shown} redirects to another host",
                where="url",
                cure="credentials go to no other host: take the URL that serves the list",
            )
        again = {k: v for k, v in request.headers.items() if k not in _OF_THE_BODY}
        try:
            if request.method == "POST" and not keeps:
                return self._client.build_request("GET", target, headers=again)
            kind = request.headers.get("content-type")
            if kind is not None:
                again["content-type"] = kind
            return self._client.build_request(
                request.method, target, headers=again, content=request.content or None
            )
        except (httpx.InvalidURL, UnicodeError):
            raise ConfigError(
                "rest.redirects",
                f"{self._shown} redirects to what is no URL",
                where="url",
                cure="take the URL that serves the list",
            ) from None


def basic(user: str, password: str) -> str:
    """The header `Authorization` of a user (RFC 7617, in UTF-8)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def tls_context(spec: RestSourceSpec) -> ssl.SSLContext:
    """By whom the API's server must be known, and by what certificate we are.

    Raises:
        ConfigError: `rest.tls`: a file cannot be read.
    """
    if not spec.encrypted:
        # It trusts nobody: loading the system's authorities takes a while, and none is asked.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return spec.tls.context()
    except OSError as error:
        raise ConfigError(
            "rest.tls",
            f"a certificate cannot be read: {error}",
            where="tls",
            cure="`ca`, `cert` and `key` are files in PEM format that this user may read",
        ) from None
