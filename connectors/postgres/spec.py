"""The configuration of PostgreSQL sources and sinks."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.postgres.names import parse_name
from connectors.quantities import Duration, Size

# Rows that are marked as deleted carry the time in here, unless the owner names another column.
DELETED_COLUMN = "_deleted_at"


class HeartbeatSpec(BaseModel):
    """Something small that is written into the source's log now and then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Annotated[Duration, Field(ge=timedelta(seconds=1))] = Field(
        default=timedelta(seconds=30), description="between two heartbeats"
    )
    sql: str = Field(
        default="", description="a statement to run as well, such as an update of your own table"
    )


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
    snapshot: Literal["initial", "never", "only"] = Field(
        default="initial",
        description="read the rows that are there when the source starts for the first time: "
        "before the changes that follow, not at all, or nothing else",
    )
    snapshot_readers: int = Field(
        default=1, ge=1, le=16, description="over how many connections a snapshot reads at once"
    )
    messages: bool = Field(default=True, description="capture logical decoding messages (14+)")
    max_slot_lag: Size = Field(
        default=0,
        description="how much log the server may keep for the slot, such as 10GiB: a warning at "
        "half of it, then `on_slot_lag`; default: any amount",
    )
    on_slot_lag: Literal["warn", "drop"] = Field(
        default="warn",
        description="when `max_slot_lag` is exceeded: warn, or drop the slot to save the server's "
        "disk; the source then stops, since changes are missing",
    )

    heartbeat: HeartbeatSpec | None = Field(
        default=None,
        description="write a logical message now and then, so that the slot of a database in which "
        "nothing happens moves on; never given out as a change",
    )

    failover: bool = Field(
        default=True, description="let standbys copy the slot, for a failover (17+)"
    )
    primary_dsn: SecretStr | None = Field(
        default=None,
        description="of the primary, where `dsn` leads to a standby (16+): the publication is made "
        "there",
    )
    toast: Literal["mark", "reselect"] = Field(
        default="mark",
        description="large values that an update left as they are, which the log does not carry: "
        "mark them as unavailable, or read them from the table",
    )

    @model_validator(mode="after")
    def _may_drop(self) -> SourceSpec:
        if self.on_slot_lag == "drop" and not (self.max_slot_lag and self.create):
            raise ValueError(
                "on_slot_lag: drop goes with max_slot_lag, and not with create: false: a slot that"
                " somebody else made is never dropped"
            )
        return self


class SinkSpec(BaseModel):
    """A PostgreSQL database that follows the topics it reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["postgres"]
    dsn: SecretStr = Field(description="libpq connection string or URL, TLS options included")
    tables: dict[str, str] = Field(
        default={},
        description="where a table's rows go: `schema.table` of the source to `schema.table`, or "
        "`table`, of the target; quoted where needed",
    )
    target_schema: str = Field(
        default="", alias="schema", description="of the target's tables; default: the source's"
    )
    mode: Literal["upsert", "append"] = Field(
        default="upsert",
        description="follow the source's rows, or append each change to a history table",
    )
    deletes: Literal["hard", "soft"] = Field(
        default="hard", description="delete rows, or mark them in `deleted_column`"
    )
    deleted_column: str = Field(
        default=DELETED_COLUMN,
        min_length=1,
        description="when a row was deleted, with soft deletes",
    )
    transactions: bool = Field(
        default=False,
        description="apply the source's transactions whole: never commit in the middle of one",
    )
    parallelism: int = Field(
        default=1, ge=1, le=16, description="sessions that store rows at once, each its own keys"
    )
    create_tables: bool = Field(default=True, description="create tables that do not exist yet")
    schema_changes: Literal["add", "ignore", "refuse"] = Field(
        default="add",
        description="what to do about columns that the target lacks, or whose type is too narrow",
    )
    max_rewrite: Size = Field(
        default=2**30,
        description="tables of more bytes than this are not rewritten for a wider type or a new "
        "key, which locks them meanwhile",
    )

    @field_validator("tables")
    @classmethod
    def _names(cls, tables: dict[str, str]) -> dict[str, str]:
        for source, target in tables.items():
            if len(parse_name(source)) == 1:
                raise ValueError(f"{source!r}: name the source table with its schema: schema.table")
            parse_name(target)
        if len({parse_name(source) for source in tables}) < len(tables):
            raise ValueError("a source table is named twice")
        return tables

    @model_validator(mode="after")
    def _together(self) -> SinkSpec:
        if self.mode == "append" and self.deletes == "soft":
            raise ValueError(
                "deletes: soft goes with mode: upsert; a history table has a row for each delete"
            )
        if "deleted_column" in self.model_fields_set and self.deletes != "soft":
            raise ValueError("deleted_column goes with deletes: soft")
        if self.transactions and self.parallelism > 1:
            raise ValueError(
                "transactions: true stores over one session; leave parallelism out, or 1"
            )
        return self
