"""The configuration of webhook sources."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import quote

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    field_validator,
    model_validator,
)

from connectors.quantities import Duration, Size
from connectors.webhook.signatures import key_of
from connectors.webhook.verification import (
    BearerToken,
    GithubSignature,
    StandardWebhooks,
    StripeSignature,
    Unverified,
    Verification,
)

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):(\d{1,5})")
_NEVER_KEPT = {"authorization", "cookie", "proxy-authorization", "stripe-signature",
               "webhook-signature", "x-hub-signature", "x-hub-signature-256"}  # fmt: skip
# Of a table's name as its subject has it.
LONGEST_TABLE = 255
_Type = Literal["integer", "number", "boolean", "string", "json"]


def _expression(text: str) -> str:
    try:
        jmespath.compile(text)
    except JMESPathError as error:
        first = str(error).split("\n")[0].strip()
        raise ValueError(f"{text!r} is no JMESPath expression: {first}") from None
    return text


def _header(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a header")
    if text.lower() in _NEVER_KEPT:
        raise ValueError(f"{text} holds a secret and is never stored")
    return text.lower()


def _table_name(text: str) -> str:
    if len(quote(text, safe="")) > LONGEST_TABLE:
        raise ValueError(f"a table's name is over {LONGEST_TABLE} characters, as a topic writes it")
    return text


def _none(value: object) -> object:
    return {"none": True} if value == "none" else value


def _form(value: object) -> str:
    """Which way to write a setting was chosen; so an error speaks of that one alone."""
    return "mapping" if isinstance(value, dict | BaseModel) else "text"


def _form_of_key(value: object) -> str:
    return "mapping" if isinstance(value, dict) else "list"


Expression = Annotated[str, AfterValidator(_expression)]
HeaderName = Annotated[str, AfterValidator(_header)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerifySpec(_Spec):
    """Who is believed: exactly one way, with every secret that is good at present.

    The word `none` stands for `{none: true}`.
    """

    standard: tuple[SecretStr, ...] = Field(
        default=(), description="Standard Webhooks: `whsec_…` each"
    )
    github: tuple[SecretStr, ...] = Field(default=(), description="X-Hub-Signature-256")
    stripe: tuple[SecretStr, ...] = Field(default=(), description="Stripe-Signature")
    bearer: tuple[SecretStr, ...] = Field(default=(), description="Authorization: Bearer")
    none: Literal[True] | None = Field(default=None, description="everybody is believed")
    tolerance: Annotated[Duration, Field(gt=timedelta())] = Field(
        default=timedelta(minutes=5), description="of a signed timestamp, both ways"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        ways = [self.standard, self.github, self.stripe, self.bearer, self.none]
        if sum(map(bool, ways)) != 1:
            raise ValueError("exactly one of standard, github, stripe and bearer; or none")
        for secret in self.standard:
            key_of(secret.get_secret_value())
        for secret in (*self.github, *self.stripe, *self.bearer):
            if not secret.get_secret_value().strip() or not secret.get_secret_value().isascii():
                raise ValueError("a secret is ASCII text, and not empty")
        return self

    @property
    def verification(self) -> Verification:
        """What judges requests."""
        seconds = self.tolerance.total_seconds()
        if self.none:
            return Unverified()
        if self.standard:
            keys = [key_of(secret.get_secret_value()) for secret in self.standard]
            return StandardWebhooks(keys, seconds)
        if self.github:
            return GithubSignature(_bytes(self.github))
        if self.stripe:
            return StripeSignature(_bytes(self.stripe), seconds)
        return BearerToken(_bytes(self.bearer))


def _bytes(secrets: tuple[SecretStr, ...]) -> list[bytes]:
    return [secret.get_secret_value().encode("ascii") for secret in secrets]


class DedupeSpec(_Spec):
    """Of requests with the same value of a header, only the first is stored."""

    header: HeaderName = "webhook-id"
    window: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(days=7))] = timedelta(
        minutes=10
    )


class RateSpec(_Spec):
    """Requests a second; what goes beyond is answered 429."""

    requests: float = Field(default=0, ge=0, description="of all clients together; 0: any number")
    per_client: float = Field(default=0, ge=0, description="of each address; 0: any number")
    burst: Annotated[Duration, Field(gt=timedelta())] = Field(
        default=timedelta(seconds=1), description="what may come at once, in seconds of the rate"
    )


class ServerTlsSpec(_Spec):
    """Files in PEM format."""

    cert: str = Field(description="the server's certificate, and those that signed it")
    key: str = Field(description="its private key")


class TableSpec(_Spec):
    """The table's name out of each record."""

    expression: Expression


class OpSpec(_Spec):
    """The operation out of each record."""

    expression: Expression
    values: dict[str, Literal["c", "u", "d", "skip"]]
    default: Literal["c", "u", "d", "skip"] = "c"


class MapSpec(_Spec):
    """What becomes of a request.

    Expressions are JMESPath over `{"body": …, "record": …, "headers": {…}}`.
    """

    records: Expression | None = Field(
        default=None, description="a list in the body; none: the body is the one record"
    )
    table: Annotated[
        Annotated[str, Field(min_length=1), AfterValidator(_table_name), Tag("text")]
        | Annotated[TableSpec, Tag("mapping")],
        Discriminator(_form),
    ] = "events"
    key: Annotated[
        Annotated[tuple[str, ...], Tag("list")] | Annotated[dict[str, Expression], Tag("mapping")],
        Discriminator(_form_of_key),
    ] = Field(
        default=("id",), description="fields of the row, or names and expressions; []: no key"
    )
    op: Annotated[
        Annotated[Literal["c", "u", "d"], Tag("text")] | Annotated[OpSpec, Tag("mapping")],
        Discriminator(_form),
    ] = "c"
    row: Expression = Field(default="record", description="what becomes `after`, an object")
    ts: Expression | None = Field(
        default=None, description="when it happened: seconds, milliseconds, or RFC 3339"
    )
    form_field: str = Field(
        default="", description="of a form: the field that holds the body as JSON"
    )


class SourceSpec(_Spec):
    """An HTTP endpoint whose requests become changes."""

    type: Literal["webhook"]
    listen: str = Field(default="127.0.0.1:8080", description="address:port, [IPv6]:port")
    path: str = "/"
    serve: bool = Field(
        default=True,
        description="whether the capture flow listens; else `waxtap ingest --source NAME` does",
    )
    verify: Annotated[VerifySpec, BeforeValidator(_none)]
    allow_http: bool = Field(default=False, description="beyond loopback without TLS")
    allow_unverified: bool = Field(default=False, description="beyond loopback with `verify: none`")
    tls: ServerTlsSpec | None = None
    dedupe: DedupeSpec | None = None
    max_body: Annotated[Size, Field(ge=1024)] = 512 * 1024
    timeout: Annotated[Duration, Field(gt=timedelta())] = Field(
        default=timedelta(seconds=10), description="for the head of a request, and for its body"
    )
    max_connections: int = Field(default=1000, ge=1)
    rate: RateSpec = RateSpec()
    content_types: tuple[str, ...] = Field(default=(), description="others are refused; none: any")
    headers: tuple[HeaderName, ...] = Field(
        default=(), max_length=16, description="stored with the body, for the expressions"
    )
    keep: Duration = Field(
        default=timedelta(), description="how long a request stays in the inbox once it is captured"
    )
    max_backlog: Size = Field(default=0, description="bytes in the inbox; 0: any number")
    map: MapSpec = MapSpec()
    columns: dict[str, _Type] = Field(
        default={}, description="of every table; none: they are found in the records"
    )

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        if not _PATH.fullmatch(path) or path == "/health":
            raise ValueError("a path such as /hooks/shop; /health is taken")
        return path

    @field_validator("content_types")
    @classmethod
    def _content_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each.strip().lower() for each in types)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        host, _ = self.address
        if not _is_loopback(host):
            if self.tls is None and not self.allow_http:
                raise ValueError(
                    "listen: beyond loopback TLS is required (`tls`), unless `allow_http: true`"
                    " says that something in front has it"
                )
            if self.verify.none and not self.allow_unverified:
                raise ValueError(
                    "listen: beyond loopback requests must be verified (`verify`), unless"
                    " `allow_unverified: true` stands beside it"
                )
        missing = [name for name in self.map.key if name not in self.columns]
        if self.columns and missing:
            raise ValueError(f"columns: {missing[0]} is missing, which belongs to the key")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen at."""
        found = _LISTEN.fullmatch(self.listen)
        if not found or int(found[3]) > 65535:
            raise ValueError("listen: address:port, such as 127.0.0.1:8080 or [::1]:8080")
        return found[1] or found[2], int(found[3])

    @property
    def window(self) -> timedelta:
        """For how long ids are remembered."""
        return self.dedupe.window if self.dedupe else timedelta()

    @property
    def kept_headers(self) -> tuple[str, ...]:
        """The headers that are stored with a body."""
        more = (self.dedupe.header,) if self.dedupe else ()
        return tuple(dict.fromkeys(("content-type", *more, *self.headers)))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
