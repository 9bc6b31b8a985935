"""The configuration of Elasticsearch sinks."""

from __future__ import annotations

from datetime import timedelta
from string import Formatter
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    model_validator,
)

from connectors.quantities import Duration


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port is None:
        raise ValueError("an address is http(s)://host:port")
    if "@" in parts.netloc:
        raise ValueError("credentials belong into user and password, or api_key")
    return value


def _fields(template: str, known: set[str]) -> set[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"not a template: {error}") from None
    names = {name for _, name, _, _ in parts if name is not None}
    if names - known or any(extra or change for _, name, extra, change in parts if name):
        raise ValueError(
            f"a template may hold {', '.join(f'{{{name}}}' for name in sorted(known))}"
        )
    return names


def _index(template: str) -> str:
    _fields(template, {"topic", "schema", "table"})
    return template


def _id(template: str) -> str:
    if "key" not in _fields(template, {"topic", "schema", "table", "key"}):
        raise ValueError("a document's id must hold {key}")
    return template


class SinkSpec(BaseModel):
    """Elasticsearch indices that follow the topics the sink reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["elasticsearch"]
    url: Annotated[
        tuple[Annotated[str, AfterValidator(_address)], ...],
        BeforeValidator(_several),
        Field(min_length=1, description="http(s)://host:port of one node or several"),
    ]
    api_key: SecretStr = Field(default=SecretStr(""), description="in its encoded form")
    user: str = ""
    password: SecretStr = SecretStr("")
    ca: str = Field(default="", description="certificates (PEM) of the authorities to trust")
    index: Annotated[str, AfterValidator(_index)] = Field(
        default="{topic}", description="template of {topic}, {schema}, {table}"
    )
    id: Annotated[str, AfterValidator(_id)] = Field(
        default="{key}", description="template of {key}, {topic}, {schema}, {table}"
    )
    create: Literal["index", "template", "nothing"] = Field(
        default="index",
        description="make each index with the table's mapping, or an index template, or nothing",
    )
    schema_changes: Literal["add", "ignore", "refuse"] = Field(
        default="add",
        description="what to do about columns that an index has no field for, or one of a "
        "narrower type",
    )
    settings: dict[str, JsonValue] = Field(
        default={}, description="index settings of what is made, such as number_of_shards"
    )
    fields: dict[str, dict[str, JsonValue]] = Field(
        default={}, description="mappings by column, instead of those made from the table"
    )
    gc_deletes: Duration = Field(
        default=timedelta(minutes=10),
        description="how long an index that is made remembers the version of a deleted document",
    )
    version: Literal["sequence", "time"] = Field(
        default="sequence",
        description="what documents' versions are; `time` where several streams write the same ids",
    )
    truncates: Literal["delete", "ignore"] = "delete"
    parallelism: int = Field(default=2, ge=1, le=16, description="bulk requests under way")
    compress: bool = Field(default=False, description="requests by gzip")
    timeout: Duration = Field(
        default=timedelta(seconds=30), ge=timedelta(seconds=1), description="of one request"
    )

    @model_validator(mode="after")
    def _login(self) -> SinkSpec:
        if bool(self.user) != bool(self.password.get_secret_value()):
            raise ValueError("user and password belong together")
        if self.user and self.api_key.get_secret_value():
            raise ValueError("either api_key, or user and password")
        if self.ca and not all(url.startswith("https:") for url in self.url):
            raise ValueError("ca is of use with https addresses only")
        return self
