"""The configuration of MySQL and MariaDB sources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class _BinlogSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dsn: SecretStr = Field(
        description="`mysql://user:password@host:3306/?tls=verify-full&ca=/path`; several hosts,"
        " with commas between, are servers of one topology"
    )
    tables: tuple[str, ...] = Field(
        default=("*.*",),
        description="patterns `database.table` with `*`, quoted where needed: ``shop.`my table` ``",
    )
    server_id: int | None = Field(
        default=None,
        ge=1,
        le=2**32 - 1,
        description="as which replica the source registers; default: made from its name",
    )
    statements: Literal["stop", "skip"] = Field(
        default="stop",
        description="what to do about changes that a session has logged as statements",
    )
    zero_dates: Literal["as_null", "as_text"] = Field(
        default="as_null",
        description="how dates that no calendar has, such as 0000-00-00, are written",
    )
    snapshot: Literal["initial", "never", "only"] = Field(
        default="initial",
        description="read the rows that are there when the source starts for the first time: "
        "before the changes that follow, not at all, or nothing else",
    )
    snapshot_readers: int = Field(
        default=1, ge=1, le=16, description="over how many connections a snapshot reads at once"
    )


class MysqlSourceSpec(_BinlogSpec):
    """A MySQL server whose committed changes are captured."""

    type: Literal["mysql"]


class MariadbSourceSpec(_BinlogSpec):
    """A MariaDB server whose committed changes are captured."""

    type: Literal["mariadb"]
