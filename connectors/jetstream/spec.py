"""The configuration of the NATS servers and of the streams made there."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from connectors.quantities import Duration, Size
from connectors.tls import TlsSpec


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class StreamSpec(BaseModel):
    """How the streams are laid out that Waxtap makes: `CDC_<source>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: int = Field(default=1, ge=1, le=5)
    max_age: Duration = Field(default=timedelta(), description="0: messages never expire")
    max_bytes: Size = Field(default=0, description="0: unlimited; a full stream pushes back")
    storage: Literal["file", "memory"] = "file"
    compression: Literal["none", "s2"] = "none"


class DeadLetterSpec(BaseModel):
    """How the stream is laid out in which sinks put aside what their targets refuse: `DLQ`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_age: Duration = Field(default=timedelta(), description="0: letters never expire")
    max_bytes: Size = Field(
        default=0, description="0: unlimited; while it is full, a sink waits that has one more"
    )
    replicas: int = Field(default=0, ge=0, le=5, description="0: as `nats.stream.replicas`")


class NatsSpec(BaseModel):
    """Where NATS is, and who we are there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)] = (
        "nats://127.0.0.1:4222",
    )
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    creds: str = Field(default="", description="path of a credentials file (JWT and seed)")
    nkey: str = Field(default="", description="path of a file that holds an nkey seed")
    tls: TlsSpec | None = None
    inbox_prefix: str = Field(default="_INBOX", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    monitor: str = Field(
        default="",
        description="URL of the server's monitoring port; only there `sync_interval` can be seen",
    )
    stream: StreamSpec = StreamSpec()

    @model_validator(mode="after")
    def _checked(self) -> NatsSpec:
        for url in self.url:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            if parts.scheme not in {"nats", "tls"} or not parts.hostname:
                raise ValueError("url: nats://host:port or tls://host:port")
            if parts.username or parts.password:
                raise ValueError("url: name the user in `user` and `password`, or the `token`")
        ways = [bool(self.user), bool(self.token.get_secret_value()), bool(self.creds)]
        if sum([*ways, bool(self.nkey)]) > 1:
            raise ValueError("only one of user, token, creds and nkey")
        return self

    @property
    def shown(self) -> str:
        """The servers, for messages."""
        return ", ".join(self.url)
