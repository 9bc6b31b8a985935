"""The configuration of the NATS servers and of the streams made there."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def _duration(value: object) -> object:
    """Seconds as a number, or a number with a unit: `90s`, `36h`, `7d`."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds, or a text such as 7d")  # noqa: TRY004 - pydantic reports ValueError
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?", value.strip())
    if not found:
        raise ValueError("a duration is a number of seconds, or a text such as 90s, 36h or 7d")
    return timedelta(seconds=float(found[1]) * _SECONDS[found[2] or "s"])


def _size(value: object) -> object:
    """Bytes as a number, or a number with a unit: `512MiB`, `10GB`."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?B)?", value.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("a size is a number of bytes, or a text such as 512MiB or 10GB")
    return int(float(found[1]) * _BYTES[(found[2] or "").upper()])


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta())]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]


class TlsSpec(BaseModel):
    """Files in PEM format; servers are verified against the system's authorities without `ca`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: str = Field(default="", description="certificates of the authorities to trust")
    cert: str = Field(default="", description="the client's own certificate")
    key: str = Field(default="", description="the private key of `cert`")

    @model_validator(mode="after")
    def _pair(self) -> TlsSpec:
        if bool(self.cert) != bool(self.key):
            raise ValueError("cert and key belong together")
        return self


class StreamSpec(BaseModel):
    """How the streams are laid out that Waxtap makes: `CDC_<source>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: int = Field(default=1, ge=1, le=5)
    max_age: Duration = Field(default=timedelta(), description="0: messages never expire")
    max_bytes: Size = Field(default=0, description="0: unlimited; a full stream pushes back")
    storage: Literal["file", "memory"] = "file"
    compression: Literal["none", "s2"] = "none"


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
