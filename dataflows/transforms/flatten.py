"""`flatten`: values out of a column of JSON, each in a column of its own.

The new columns are named beforehand: the shape of a table is a fact that sinks rely on, not
something that changes with each document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataflows.failing import StepError
from dataflows.transforms.columns import Name
from dataflows.transforms.fit import NOTHING, Fit, edit_rows, refuse_key, refuse_twice
from dataflows.transforms.kinds import Kind, column_of, converted
from dataflows.transforms.record import NULL, decode_row, is_null

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Row


class FlattenSpec(BaseModel):
    """Take values out of a column of JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: Name = Field(description="the column")
    into: dict[Name, Kind] = Field(min_length=1, description="path, with dots: kind")
    prefix: str | None = Field(default=None, description="of the new names; default: `<field>_`")
    keep: bool = Field(default=False, description="whether the column itself stays")

    @model_validator(mode="after")
    def _apart(self) -> FlattenSpec:
        names = [path.replace(".", "_") for path in self.into]
        if len(set(names)) < len(names):
            raise ValueError("two paths would be one column: dots become _ in its name")
        return self


class Flatten:
    """`flatten`: what a document lacks is null; dots of a path become `_` in the column's name."""

    def __init__(self, spec: FlattenSpec) -> None:
        self._field, self._keep = spec.field, spec.keep
        prefix = f"{spec.field}_" if spec.prefix is None else spec.prefix
        self._into = [
            (prefix + path.replace(".", "_"), tuple(path.split(".")), kind)
            for path, kind in spec.into.items()
        ]

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        if not any(column.name == self._field for column in table.columns):
            return NOTHING
        refuse_key(table, (self._field,), "it cannot be flattened")
        kept = [c for c in table.columns if self._keep or c.name != self._field]
        names = tuple(name for name, _, _ in self._into)
        columns = (*kept, *(column_of(table, name, kind) for name, _, kind in self._into))
        refuse_twice(table, columns)

        def edit(row: Row, absent: Collection[str]) -> Row:
            document = row.get(self._field)
            if document is None:
                return row
            new = {name: v for name, v in row.items() if self._keep or name != self._field}
            if self._field in absent:  # the marker stands for each of the new columns as well
                return new | dict.fromkeys(names, document)
            for name, path, kind in self._into:
                new[name] = self._taken(name, document, path, kind)
            return new

        itself = (self._field,) if self._keep else ()
        return edit_rows(
            replace(table, columns=columns),
            edit,
            edits_key=False,
            unavailable={self._field: itself + names},
            json_nulls={self._field: itself},
        )

    def _taken(
        self, name: str, document: msgspec.Raw, path: tuple[str, ...], kind: Kind
    ) -> msgspec.Raw:
        value = document
        for step in path:
            if is_null(value):
                return NULL
            try:
                value = decode_row(value).get(step, NULL)
            except msgspec.ValidationError:
                raise StepError(
                    "transform.not_an_object", f"column {name}: no object holds {step!r}"
                ) from None
        try:
            return value if kind == "json" else converted(value, kind)
        except StepError as error:
            raise StepError(error.code, f"column {name}: {error.message}") from None
