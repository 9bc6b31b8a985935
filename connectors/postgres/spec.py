"""The configuration of PostgreSQL sources and sinks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class SourceSpec(BaseModel):
    """A PostgreSQL database whose committed changes are captured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["postgres"]
    dsn: SecretStr = Field(description="libpq connection string or URL, TLS options included")
    tables: tuple[str, ...] = Field(
        default=("*.*",),
        description='patterns `schema.table` with `*`, quoted where needed: `public."My Table"`',
    )
    publication: str = Field(default="", description="default: `waxtap_<source>`")
    slot: str = Field(default="", description="default: `waxtap_<source>`")
    create: bool = Field(
        default=True, description="create and own publication and slot; false: both must exist"
    )
    messages: bool = Field(default=True, description="capture logical decoding messages (14+)")


class SinkSpec(BaseModel):
    """A PostgreSQL database that follows the topics it reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["postgres"]
    dsn: SecretStr = Field(description="libpq connection string or URL, TLS options included")
    create_tables: bool = Field(default=True, description="create tables that do not exist yet")
    schema_changes: Literal["add", "ignore", "refuse"] = Field(
        default="add", description="what to do about columns that the target lacks"
    )
