"""What the stateful steps of a pipeline take."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectors.quantities import Duration

# 2**20: a count has 20 bits beside its window.
MOST_CHANGES = 1_048_575

_Keys = Annotated[
    int,
    Field(
        ge=1,
        le=10_000_000,
        description="how many rows are remembered; one that is forgotten counts as new",
    ),
]
_KEYS = 100_000


class DedupeSpec(BaseModel):
    """Drop updates that change nothing that matters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="columns that matter, as they are behind the transforms; default: all",
    )
    keys: _Keys = _KEYS


class SampleSpec(BaseModel):
    """Keep a part of the changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int | None = Field(
        default=None, ge=2, le=MOST_CHANGES, description="of each row's updates, each so manieth"
    )
    share: float | None = Field(
        default=None, gt=0, lt=1, description="all changes of this share of the rows, by their key"
    )
    keys: _Keys = _KEYS

    @model_validator(mode="after")
    def _one(self) -> SampleSpec:
        if (self.every is None) == (self.share is None):
            raise ValueError("either every or share")
        return self


class ThrottleSpec(BaseModel):
    """Keep so many changes of a row in each interval of the source's time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    changes: int = Field(default=1, ge=1, le=MOST_CHANGES, description="at most so many")
    every: Duration = Field(ge=timedelta(milliseconds=1), description="length of the interval")
    keys: _Keys = _KEYS


class StatefulSpec(BaseModel):
    """The stateful steps of a pipeline, in the order in which they are applied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dedupe: DedupeSpec | None = None
    sample: SampleSpec | None = None
    throttle: ThrottleSpec | None = None

    @property
    def stateful(self) -> bool:
        """Whether there is any."""
        return bool(self.dedupe or self.sample or self.throttle)
