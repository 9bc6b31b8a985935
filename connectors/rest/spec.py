"""The configuration of REST sources."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    field_validator,
    model_validator,
)

from connectors.http_headers import check_headers
from connectors.quantities import Duration, Share, Size
from connectors.rest.auth_spec import AuthSpec, OAuth2Spec
from connectors.rest.expressions import check
from connectors.rest.paging_spec import LinkSpec, PagingSpec
from connectors.tls import TlsSpec

_OURS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
        "trailer", "expect", "accept-encoding", "if-none-match", "if-modified-since",
    }
)  # fmt: skip
# A pattern has to tell these apart: the second half of a day, and of a year.
_PROBES = (
    datetime(2026, 2, 3, 4, 5, 6, 7, UTC),
    datetime(2031, 11, 29, 22, 58, 59, 999_999, UTC),
)
_COARSEST = timedelta(days=32)
_TABLE = re.compile(r"(?:([^.\s\"*]+)\.)?([^.\s\"*]+)")
ColumnType = Literal[
    "string", "integer", "number", "double", "decimal", "boolean", "json", "timestamp", "date",
    "uuid",
]  # fmt: skip


def _check_pattern(pattern: str) -> None:
    """Raise ValueError for one whose moments cannot be told from what it writes."""
    for moment in _PROBES:
        try:
            read = datetime.strptime(moment.strftime(pattern), pattern)
        except ValueError:
            read = None
        if read is not None and read.tzinfo is None:
            read = read.replace(tzinfo=UTC)
        if read is None or not moment - _COARSEST <= read <= moment:
            raise ValueError(
                "format: `unix`, `unix_ms`, or a pattern that tells a moment, such as"
                " `%Y-%m-%dT%H:%M:%SZ`"
            )


class ChangedSinceSpec(BaseModel):
    """The member of a record that rises with each of its changes, and how to ask by it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(description="a member of the record, such as updated_at")
    param: str = Field(description="asks for records whose `field` is at or after a value")
    place: Literal["query", "body"] = "query"
    type: Literal["timestamp", "integer", "string"] = "timestamp"
    format: str = Field(
        default="",
        description="how `param` is written: `unix`, `unix_ms`, or a pattern of strftime; default:"
        " as the record has it",
    )
    initial: str | int | None = Field(
        default=None, description="the first value of `param`; default: it is left out at first"
    )
    overlap: Duration = Field(
        default=timedelta(), description="so far back is asked again, for records that come late"
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.type != "timestamp" and (self.format or self.overlap):
            raise ValueError("`format` and `overlap` are for `type: timestamp` only")
        if self.format not in {"", "unix", "unix_ms"}:
            _check_pattern(self.format)
        return self

    @property
    def beginning(self) -> str:
        """What the first poll asks for; empty: for all records."""
        return "" if self.initial is None else str(self.initial)


class RestSourceSpec(BaseModel):
    """A list of records behind an HTTP API that is asked again and again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["rest"]
    url: SecretStr = Field(description="of the list; never shown beyond its host")
    method: Literal["GET", "POST"] = "GET"
    query: dict[str, SecretStr] = {}
    headers: dict[str, SecretStr] = {}
    body: dict[str, JsonValue] | None = Field(default=None, description="sent as JSON", repr=False)
    auth: Annotated[AuthSpec, Field(discriminator="type")] | None = None
    tls: TlsSpec = TlsSpec()
    allow_http: bool = Field(default=False, description="URLs without TLS")

    records: str = Field(default="@", description="JMESPath: the list of records in an answer")
    key: tuple[str, ...] = Field(min_length=1, description="members that identify a record")
    table: str = Field(default="", description="`name` or `schema.name`; default: the source's")
    columns: dict[str, ColumnType] = Field(
        default={}, description="types of members; the others' are found out"
    )
    on_bad_record: Literal["stop", "skip"] = Field(
        default="stop", description="what to do about a record without key"
    )
    pagination: Annotated[PagingSpec, Field(discriminator="type")] = Field(
        default=LinkSpec(type="link"), description="default: the header `Link`, where there is one"
    )
    max_pages: int = Field(default=10_000, ge=1, description="more in one poll are an error")
    max_page: Annotated[Size, Field(ge=1024)] = Field(
        default=32 * 1024 * 1024, description="a larger answer is refused"
    )

    interval: Annotated[Duration, Field(ge=timedelta(milliseconds=10))] | None = Field(
        default=None, description="between the beginnings of two polls; 60s where no cron is given"
    )
    cron: str = Field(default="", description="when to poll, in UTC, such as `*/15 * * * *`")
    jitter: Duration = Field(default=timedelta(), description="a poll begins up to so much later")

    mode: Literal["full", "incremental"] = "full"
    cursor: ChangedSinceSpec | None = Field(default=None, description="for `mode: incremental`")
    created_field: str = Field(
        default="", description="member that tells when a record was made, for `incremental`"
    )
    max_deletions: Share = Field(
        default=0.5, description="the source stops when more of the known records are missing"
    )

    connect_timeout: Annotated[Duration, Field(gt=timedelta())] = timedelta(seconds=10)
    read_timeout: Annotated[Duration, Field(gt=timedelta())] = Field(
        default=timedelta(seconds=30), description="between two parts of an answer"
    )
    timeout: Annotated[Duration, Field(gt=timedelta())] = Field(
        default=timedelta(minutes=5), description="for one page, from its request to its end"
    )

    _records = field_validator("records")(check)

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        check_headers(headers, _OURS, "source")
        return headers

    @field_validator("table")
    @classmethod
    def _table(cls, table: str) -> str:
        if table and not _TABLE.fullmatch(table):
            raise ValueError("`name` or `schema.name`, without blanks and quotes")
        return table

    @field_validator("cron")
    @classmethod
    def _cron(cls, cron: str) -> str:
        if cron:
            try:
                next(CronSim(cron, datetime.now(UTC)))
            except (CronSimError, StopIteration):
                raise ValueError("five fields such as `*/15 * * * *`") from None
        return cron

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self._check_url("url", self.url)
        if isinstance(self.auth, OAuth2Spec):
            self._check_url("auth.token_url", self.auth.token_url)
        if self.auth and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("either auth, or a header Authorization")
        if self.interval is not None and self.cron:
            raise ValueError("either interval or cron")
        if self.body is not None and self.method != "POST":
            raise ValueError("body: only with `method: POST`")
        places = [
            getattr(self.pagination, "place", "query"),
            getattr(self.cursor, "place", "query"),
        ]
        if "body" in places and self.method != "POST":
            raise ValueError("place: body: only with `method: POST`")
        if (self.mode == "incremental") != (self.cursor is not None):
            raise ValueError("`cursor` and `mode: incremental` belong together")
        if self.created_field and self.cursor is None:
            raise ValueError("created_field: for `mode: incremental`")
        return self

    def _check_url(self, name: str, secret: SecretStr) -> None:
        # What is wrong is told without the URL, which may hold a secret.
        url = secret.get_secret_value()
        if not re.fullmatch(r"[!-~]+", url):
            raise ValueError(f"{name}: ASCII characters without blanks; others percent-encoded")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"{name}: it is not a URL") from None
        if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
            raise ValueError(f"{name}: https://host/path")
        if parts.scheme == "http" and not self.allow_http:
            raise ValueError(f"{name}: https is required, unless `allow_http: true` is set")
        if parts.username or parts.password:
            raise ValueError(f"{name}: name the user in `auth`")

    @property
    def encrypted(self) -> bool:
        """Whether anything is asked for by TLS."""
        urls = [self.url]
        if isinstance(self.auth, OAuth2Spec):
            urls.append(self.auth.token_url)
        return any(urlsplit(url.get_secret_value()).scheme == "https" for url in urls)

    @property
    def shown(self) -> str:
        """The API for messages: without path and query, which may hold secrets."""
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc}"

    def named(self, source: str) -> tuple[str, str]:
        """The schema and the name of the table that the records make up.

        Args:
            source: The source's name.
        """
        schema, _, name = (self.table or source).rpartition(".")
        return schema or "public", name
