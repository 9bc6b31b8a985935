"""What stands in a `transform:` list, and the transforms that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dataflows.transforms.assign import Assign, SetSpec
from dataflows.transforms.cast import Cast, CastSpec
from dataflows.transforms.columns import Drop, DropSpec, Keep, KeepSpec, Rename, RenameSpec
from dataflows.transforms.flatten import Flatten, FlattenSpec
from dataflows.transforms.mask import Mask, MaskSpec
from dataflows.transforms.outbox import Outbox, OutboxSpec
from dataflows.transforms.python import PythonSpec, PythonTransform, load
from dataflows.transforms.unwrap import Unwrap, UnwrapSpec

if TYPE_CHECKING:
    from dataflows.transforms.fit import Transform

_MADE_OF: dict[str, Callable[[Any], Transform]] = {
    "rename": Rename,
    "drop": Drop,
    "keep": Keep,
    "mask": Mask,
    "set": Assign,
    "cast": Cast,
    "flatten": Flatten,
    "outbox": Outbox,
    "unwrap": Unwrap,
}


class TransformSpec(BaseModel):
    """One transform: its name and its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rename: RenameSpec | None = None
    drop: DropSpec | None = None
    keep: KeepSpec | None = None
    mask: MaskSpec | None = None
    set: SetSpec | None = None
    cast: CastSpec | None = None
    flatten: FlattenSpec | None = None
    outbox: OutboxSpec | None = None
    python: PythonSpec | None = None
    unwrap: UnwrapSpec | None = None

    @model_validator(mode="after")
    def _one(self) -> TransformSpec:
        if len(self.model_fields_set) != 1 or getattr(self, self.name) is None:
            raise ValueError(f"one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def name(self) -> str:
        """Which transform it is."""
        return next(iter(self.model_fields_set))


def _written_short(value: object) -> object:
    """`unwrap`, `{drop: [a]}` and `{python: "m:f"}` stand for what they mean in full."""
    if isinstance(value, str):
        return {value: {}}
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"one transform an item of the list, not {len(value)}")
    [(name, settings)] = value.items()
    if name == "python" and isinstance(settings, str):
        return {name: {"function": settings}}
    if name in ("drop", "keep") and not isinstance(settings, dict):
        return {name: {"fields": settings}}
    return {name: {}} if settings is None else value


Transforms = Annotated[
    tuple[Annotated[TransformSpec, BeforeValidator(_written_short)], ...],
    Field(description="what is done to each change, in this order"),
]


def make(specs: Iterable[TransformSpec], allowed: Iterable[str], where: str) -> list[Transform]:
    """Make transforms.

    Args:
        specs: In their order.
        allowed: What Python transforms may be imported (`python_transforms`).
        where: The config path of the list.

    Raises:
        ConfigError: A function may not or cannot be imported.
    """
    made: list[Transform] = []
    for index, spec in enumerate(specs):
        if spec.python is not None:
            place = f"{where}.{index}.python"
            function = load(spec.python.function, allowed, place)
            made.append(PythonTransform(spec.python, function))
        else:
            made.append(_MADE_OF[spec.name](getattr(spec, spec.name)))
    return made
