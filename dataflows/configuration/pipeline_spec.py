"""What a pipeline takes, and what pipelines and sinks do to changes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, RootModel, model_validator

from dataflows.filters import check_filter
from dataflows.memory.options import StatefulSpec
from dataflows.routing import TablePattern, check_template
from dataflows.transforms.spec import Transforms, TransformSpec

FilterText = Annotated[
    str,
    AfterValidator(check_filter),
    Field(description="CEL over op, before, after, source and key"),
]
OnError = Annotated[
    Literal["drop", "keep", "dead_letter"],
    Field(description="what becomes of a change that a filter or a transform cannot work on"),
]


def _pattern(text: str) -> str:
    TablePattern(text)
    return text


class PythonTransforms(RootModel[tuple[str, ...]]):
    """The functions that `python` transforms may call: `package.module:function`, with `*`."""


class PipelineSpec(StatefulSpec):
    """Which changes are stored, how changed, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    sources: tuple[str, ...] = Field(default=(), alias="from", description="default: every source")
    tables: tuple[Annotated[str, AfterValidator(_pattern)], ...] | None = Field(
        default=None,
        min_length=1,
        description="patterns `schema.table` with `*`; default: everything, messages included",
    )
    filter: FilterText | None = None
    transform: Transforms = ()
    on_error: OnError = "dead_letter"
    topic: str | None = Field(
        default=None,
        description="a template: {table}, {schema}, {source}, {aggregatetype} of an outbox; "
        "default: the table's own topic",
    )
    key: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="columns that choose the partition; default: the row's key",
    )

    @model_validator(mode="before")
    @classmethod
    def _said(cls, tree: object) -> object:
        """A key with nothing behind it would switch off what its writer wanted."""
        if isinstance(tree, dict):
            for name, value in tree.items():
                if value is None:
                    raise ValueError(f"nothing stands behind `{name}:`; {{}} means its defaults")
        return tree

    @model_validator(mode="after")
    def _fitting(self) -> PipelineSpec:
        names = [transform.name for transform in self.transform]
        if "unwrap" in names[:-1]:
            raise ValueError("unwrap stands last: what follows would have no envelope")
        if names.count("outbox") > 1:
            raise ValueError("outbox stands once only")
        if self.topic is not None:
            check_template(self.topic, outbox="outbox" in names)
        return self

    @property
    def template(self) -> str | None:
        """The topic's template; None: each table has its own topic."""
        if self.topic is None and any(one.name == "outbox" for one in self.transform):
            return "outbox.event.{aggregatetype}"
        return self.topic


def check_sink_transforms(transforms: tuple[TransformSpec, ...]) -> tuple[TransformSpec, ...]:
    """Refuse what has no meaning behind a stream. Raises ValueError."""
    for transform in transforms:
        if transform.name in ("unwrap", "outbox"):
            raise ValueError(f"{transform.name} belongs into a pipeline: sinks need envelopes")
    return transforms
