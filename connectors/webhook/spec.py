"""The configuration of webhook sinks."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from connectors.http_headers import check_headers, is_header_value
from connectors.quantities import Duration, Size
from connectors.tls import TlsSpec
from connectors.webhook.addresses import Network
from connectors.webhook.signatures import key_of

_OURS = frozenset(
    {
        "host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive",
        "upgrade", "te", "trailer", "expect", "accept-encoding",
        "webhook-id", "webhook-timestamp", "webhook-signature",
    }
)  # fmt: skip


class AuthSpec(BaseModel):
    """The credentials of the header `Authorization`: a token, or a user with a password."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bearer: SecretStr = SecretStr("")
    user: str = ""
    password: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.bearer.get_secret_value()) == bool(self.user):
            raise ValueError("either bearer, or user and password")
        if not is_header_value(self.bearer.get_secret_value() or "-"):
            raise ValueError("bearer: visible ASCII characters only")
        if ":" in self.user:
            raise ValueError("user: basic authentication cannot express a colon in it")
        return self


def _networks(value: object) -> object:
    if isinstance(value, bool):
        return value
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise ValueError("true, or a list of networks such as 10.1.0.0/16")  # noqa: TRY004 - pydantic reports ValueError
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise ValueError(f"a network is written such as 10.1.0.0/16: {error}") from None


class SinkSpec(BaseModel):
    """An HTTP endpoint that is told of each change, in the form of Standard Webhooks."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    type: Literal["webhook"]
    url: SecretStr = Field(description="where to; never shown beyond its host")
    secrets: tuple[SecretStr, ...] = Field(
        default=(), description="`whsec_…`: each of them signs; none: no signature"
    )
    body: Literal["event", "list", "ndjson"] = Field(
        default="event", description="one change a request, or several as a JSON list or as lines"
    )
    max_changes: int = Field(default=100, ge=1, le=1000, description="in one list or ndjson")
    max_body: Annotated[Size, Field(ge=1024)] = Field(
        default=1024 * 1024, description="more changes go into a further request"
    )
    parallelism: int = Field(
        default=8, ge=1, le=256, description="requests under way; never two with the same key"
    )
    auth: AuthSpec | None = None
    headers: dict[str, SecretStr] = {}
    tls: TlsSpec = TlsSpec()
    connect_timeout: Annotated[Duration, Field(gt=timedelta())] = timedelta(seconds=5)
    timeout: Annotated[Duration, Field(gt=timedelta())] = Field(
        default=timedelta(seconds=30), description="from the connection to the answer's end"
    )
    allow_http: bool = Field(default=False, description="a URL without TLS")
    allow_private: Annotated[bool | tuple[Network, ...], BeforeValidator(_networks)] = Field(
        default=False, description="addresses that are not public: all of them, or these networks"
    )
    show_answers: bool = Field(
        default=False, description="put the beginning of a refusing answer into the error"
    )

    @field_validator("secrets")
    @classmethod
    def _secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            key_of(secret.get_secret_value())
        return secrets

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        check_headers(headers, _OURS, "sink")
        return headers

    @model_validator(mode="after")
    def _checked(self) -> Self:
        # What is wrong is told without the URL, which may hold a secret.
        url = self.url.get_secret_value()
        if not re.fullmatch(r"[!-~]+", url):
            raise ValueError("url: ASCII characters without blanks; others percent-encoded")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("url: it is not a URL") from None
        if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
            raise ValueError("url: https://host/path")
        if parts.scheme == "http" and not self.allow_http:
            raise ValueError("url: https is required, unless `allow_http: true` stands beside it")
        if parts.username or parts.password:
            raise ValueError("url: name the user in `auth`")
        if self.auth and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("either auth, or a header Authorization")
        return self

    @property
    def shown(self) -> str:
        """The endpoint for messages: without path and query, which may hold secrets."""
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys of `secrets`."""
        return tuple(key_of(secret.get_secret_value()) for secret in self.secrets)
