"""What every topic, source and sink of a configuration takes, whatever its type."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from connectors.contracts.changes import CHUNK_CHANGES
from connectors.quantities import Duration
from dataflows.configuration.pipeline_spec import FilterText, OnError, check_sink_transforms
from dataflows.routing import check_topic
from dataflows.transforms.spec import Transforms


class TopicSpec(BaseModel):
    """How a topic is laid out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partitions: Annotated[int, Field(ge=1, le=1024)] = 1


class BatchSpec(BaseModel):
    """How many changes go to a sink at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=CHUNK_CHANGES, ge=1, le=CHUNK_CHANGES, description="at most so many")
    time: Duration = Field(
        default=timedelta(),
        le=timedelta(seconds=60),
        description="how long a batch that is not full waits for more; 0: not at all",
    )


_STARTS = "one of beginning, end, {time: …} and {sequence: …}"


def _word(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in ("beginning", "end"):
        raise ValueError(_STARTS)
    return {value: True}


class StartSpec(BaseModel):
    """Where a sink begins in a stream of which its target has nothing yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beginning: Literal[True] | None = None
    end: Literal[True] | None = None
    time: datetime | None = Field(default=None, description="at the first change stored then")
    sequence: int | None = Field(default=None, ge=1, description="at this sequence of the stream")

    @model_validator(mode="after")
    def _one(self) -> StartSpec:
        if len(self.model_fields_set) != 1:
            raise ValueError(_STARTS)
        if self.time is not None and self.time.tzinfo is None:
            raise ValueError("a time needs its offset from UTC: 2026-01-31T12:00:00Z")
        return self


OnRefusal = Literal["park", "skip", "stop"]
Start = Annotated[StartSpec, BeforeValidator(_word)]


# How a flow is run where the control service runs it; by hand, Bytewax's own options say it.
Workers = Annotated[int, Field(ge=1, le=64, description="worker threads of each process")]
Processes = Annotated[int, Field(ge=1, le=64, description="processes of the flow's cluster")]


def _topic(name: str) -> str:
    if name:
        check_topic(name)
    return name


class SourceOptions(BaseModel):
    """What every source takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accept: tuple[str, ...] = ()
    schema_topic: Annotated[str, AfterValidator(_topic)] = Field(
        default="", description="the topic of changes of tables' shapes; empty: they are not told"
    )
    workers: Workers = 1
    processes: Processes = 1


class SinkOptions(BaseModel):
    """What every sink takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    topics: tuple[str, ...] = Field(min_length=1)
    sources: tuple[str, ...] = Field(default=(), alias="from")
    accept: tuple[str, ...] = ()
    batch: BatchSpec = BatchSpec()
    start: Start = StartSpec(beginning=True)
    filter: FilterText | None = None
    transform: Annotated[Transforms, AfterValidator(check_sink_transforms)] = ()
    on_error: OnError = "dead_letter"
    on_refusal: OnRefusal = Field(
        default="park",
        description="a change that the target refuses becomes a dead letter, and later changes of "
        "its key are parked behind it (park) or go on (skip); or the sink stops",
    )
    workers: Workers = 1
    processes: Processes = 1
