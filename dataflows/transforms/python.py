"""`python`: a function of the user's own, of one change, that returns none, one or several.

It runs in the flow's process and with its rights, so it is imported only when the configuration's
`python_transforms` allows it by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import msgspec
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field

from connectors.errors import ConfigError
from dataflows.failing import StepError
from dataflows.transforms.change_view import ChangeView
from dataflows.transforms.columns import Name
from dataflows.transforms.fit import Fit
from dataflows.transforms.kinds import Kind, column_of
from dataflows.transforms.python_rows import Given, Rows
from dataflows.transforms.record import NULL, decode_value, encode, key_of_row

if TYPE_CHECKING:
    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Record

Function: TypeAlias = Callable[[ChangeView], ChangeView | Iterable[ChangeView] | None]

_OPS = ("c", "u", "d", "r")
REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class PythonSpec(BaseModel):
    """Call a function."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: Annotated[str, Field(pattern=REFERENCE.pattern + "$")] = Field(
        description="package.module:function"
    )
    columns: dict[Name, Kind] = Field(default={}, description="columns that it adds: kind")


def load(reference: str, allowed: Iterable[str], where: str) -> Function:
    """Import a function.

    Raises:
        ConfigError: The configuration does not allow it, or there is no such function.
    """
    if not any(fnmatchcase(reference, pattern) for pattern in allowed):
        raise ConfigError(
            "config.python_not_allowed",
            f"{reference} is not on the list of what may be called",
            where=where,
            cure=f'python_transforms: ["{reference}"]',
        )
    module, _, name = reference.partition(":")
    try:
        function: object = getattr(import_module(module), name)
    except Exception as error:
        raise ConfigError(
            "config.python_not_found",
            f"{reference} cannot be imported: {type(error).__name__}: {error}",
            where=where,
            cure="install its package where the flow runs",
        ) from error
    if not callable(function):
        raise ConfigError("config.python_not_found", f"{reference} is no function", where=where)
    return cast("Function", function)


class PythonTransform:
    """`python`: what the function does not touch stays the bytes it was."""

    def __init__(self, spec: PythonSpec, function: Function) -> None:
        self._name, self._function, self._columns = spec.function, function, spec.columns

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        columns = {column.name: column for column in table.columns}
        for name, kind in self._columns.items():
            columns[name] = column_of(table, name, kind)
        shape = replace(table, columns=tuple(columns.values()))
        rows = Rows(shape, self._columns)

        def apply(record: Record) -> Sequence[Record]:
            if record.op == "t":
                record.table = shape
                return (record,)
            before = Given(record.before, ())
            after = Given(record.after, record.unavailable)
            view = ChangeView(
                record.op,
                None if record.key is None else decode_value(record.key),
                before.shown(),
                after.shown(),
                decode_value(record.fields.get("source", NULL)) or {},
                table.schema,
                table.name,
                record.unavailable,
            )
            return [
                self._taken(record.copy(), shape, rows, before, after, returned)
                for returned in self._call(view)
            ]

        return Fit(apply, shape)

    def _call(self, view: ChangeView) -> Sequence[ChangeView]:
        try:
            returned = self._function(view)
            # A generator runs here.
            several = list(returned) if isinstance(returned, Iterable) else [returned]
        except (Exception, SystemExit) as error:
            # Not the exception's text, which may tell of the row.
            raise StepError(
                "transform.python_failed", f"{self._name} raised {type(error).__name__}"
            ) from error
        if returned is None:
            return ()
        changes = [one for one in several if isinstance(one, ChangeView)]
        if len(changes) < len(several):
            raise StepError(
                "transform.python_result", f"{self._name} returned something else than changes"
            )
        return changes

    def _taken(
        self,
        record: Record,
        shape: TableSchema,
        rows: Rows,
        before: Given,
        after: Given,
        returned: ChangeView,
    ) -> Record:
        if returned.op not in _OPS or (returned.op == "d") == (returned.after is not None):
            raise StepError(
                "transform.python_result",
                f"{self._name}: a change is c, u or r with a row behind it, or d without one",
            )
        record.before = rows.old(before, returned.before)
        record.after = rows.new(after, returned.after)
        record.unavailable = rows.unavailable(record.unavailable, returned.after)
        record.json_nulls = rows.json_nulls(record.json_nulls, record.after)
        row = record.after if record.after is not None else record.before
        if shape.key:
            if row is None or any(name not in row for name in shape.key):
                raise StepError(
                    "transform.python_result", f"{self._name}: a row lacks a column of its key"
                )
            record.key = key_of_row({name: row[name] for name in shape.key})
        if returned.op != record.op:
            record.op = returned.op
            record.fields = record.fields | {"op": msgspec.Raw(encode(returned.op))}
        record.table = shape
        return record
