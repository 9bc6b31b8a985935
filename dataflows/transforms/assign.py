"""`set`: columns whose values are given, or computed from the change."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from connectors.contracts.changes import Column
from dataflows.expressions import Expression
from dataflows.failing import StepError
from dataflows.transforms.columns import Name
from dataflows.transforms.fit import Fit, moved, refuse_key
from dataflows.transforms.kinds import Kind, column_of, made
from dataflows.transforms.record import NULL, decode_value, encode

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Record, Row

# What the result of an expression is, by the name of its type.
_KINDS: dict[str, Kind] = {
    "STRING": "string",
    "INT": "integer",
    "UINT": "integer",
    "DOUBLE": "number",
    "BOOL": "boolean",
}
_SCALARS: dict[type, Kind] = {str: "string", bool: "boolean", int: "integer", float: "number"}


def _constant(value: object) -> object:
    if value is not None and type(value) not in _SCALARS:
        raise ValueError("a text, a number, true, false or null is expected here")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a finite number is expected here")
    return value


def _expression(text: str) -> str:
    Expression(text)
    return text


class SetSpec(BaseModel):
    """Give columns, new ones too, a value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: dict[Name, Annotated[Any, AfterValidator(_constant)]] = Field(
        default={}, description="column: constant"
    )
    cel: dict[Name, Annotated[str, AfterValidator(_expression)]] = Field(
        default={}, description="column: CEL expression"
    )
    types: dict[Name, Kind] = Field(
        default={}, description="what an expression gives, where it does not tell by itself"
    )

    @model_validator(mode="after")
    def _whole(self) -> SetSpec:
        if not self.fields and not self.cel:
            raise ValueError("`fields` or `cel` is needed")
        for name in self.cel:
            if name in self.fields:
                raise ValueError(f"{name} is in both `fields` and `cel`")
            if name not in self.types and Expression(self.cel[name]).type not in _KINDS:
                raise ValueError(f"the type of {name} is not known beforehand: add it to `types`")
        return self


class Assign:
    """`set`: expressions see the change as the transforms before have left it.

    What is set stands in the new row. A column of that name is replaced in the old row, too, by the
    constant; one that is computed is left out there.
    """

    def __init__(self, spec: SetSpec) -> None:
        self._constants = {name: msgspec.Raw(encode(spec.fields[name])) for name in spec.fields}
        self._expressions = {name: Expression(text) for name, text in spec.cel.items()}
        self._kinds: dict[str, Kind | None] = {
            name: _SCALARS.get(type(value)) for name, value in spec.fields.items()
        }
        for name, expression in self._expressions.items():
            self._kinds[name] = spec.types.get(name) or _KINDS[expression.type]
        for name, kind in spec.types.items():
            if name in self._constants:
                self._kinds[name] = kind

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        refuse_key(table, self._kinds, "it cannot be set")
        columns = {column.name: column for column in table.columns}
        for name, kind in self._kinds.items():
            columns[name] = _column(table, columns.get(name), name, kind)
        shape = replace(table, columns=tuple(columns.values()))
        gone: dict[str, tuple[str, ...]] = dict.fromkeys(self._kinds, ())

        def apply(record: Record) -> Sequence[Record]:
            if record.after is not None:
                after = record.after | self._constants
                for name, expression in self._expressions.items():
                    after[name] = self._computed(record, name, expression)
                record.after = after
            if record.before is not None:
                record.before = self._old(record.before)
            record.table = shape
            record.unavailable = moved(record.unavailable, gone)
            record.json_nulls = moved(record.json_nulls, gone)
            return (record,)

        return Fit(apply, shape)

    def _computed(self, record: Record, name: str, expression: Expression) -> msgspec.Raw:
        kind = cast("Kind", self._kinds[name])
        try:
            return made(expression.evaluate(_data(record, expression)), kind)
        except StepError as error:
            code = error.code.removeprefix("transform.")
            raise StepError(f"transform.{code}", f"column {name}: {error.message}") from None

    def _old(self, row: Row) -> Row:
        return {
            name: self._constants.get(name, value)
            for name, value in row.items()
            if name not in self._expressions
        }


def _column(table: TableSchema, old: Column | None, name: str, kind: Kind | None) -> Column:
    if kind is None:  # a null fits every column
        return old or column_of(table, name, "string")
    return column_of(table, name, kind)


def _data(record: Record, expression: Expression) -> dict[str, object]:
    """The variables that an expression looks at."""
    data: dict[str, object] = {"op": record.op}
    for variable, fields in expression.looks.items():
        if variable == "before":
            data[variable] = _decoded(record.before, fields, ())
        elif variable == "after":
            data[variable] = _decoded(record.after, fields, record.unavailable)
        elif variable == "source":
            data[variable] = decode_value(record.fields.get("source", NULL))
        elif variable == "key":
            data[variable] = None if record.key is None else decode_value(record.key)
    return data


def _decoded(
    row: Row | None, fields: Collection[str] | None, absent: Collection[str]
) -> dict[str, object] | None:
    if row is None:
        return None
    return {
        name: decode_value(row[name])
        for name in (row if fields is None else fields)
        if name in row and name not in absent
    }
