"""Rows on their way into a Python transform and back, as the bytes they were where untouched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from dataflows.failing import StepError
from dataflows.transforms.kinds import Kind, made
from dataflows.transforms.record import NULL, decode_value, is_null

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Row

# What a value of a column must be, by its `Column.json`; an array's elements are not looked at.
_KINDS: dict[str, Kind] = {
    "number": "number",
    "boolean": "boolean",
    "string": "string",
    "base64": "string",
    "json": "json",
}


class Given:
    """A row as a function is given it.

    Args:
        row: Its bytes; None: there is none.
        absent: Columns without a value, which the function does not see.

    Attributes:
        decoded: The row's values, as JSON has them.
    """

    def __init__(self, row: Row | None, absent: Collection[str]) -> None:
        self.row = row or {}
        self.decoded: dict[str, Any] | None = None
        if row is not None:
            self.decoded = {
                name: decode_value(value) for name, value in row.items() if name not in absent
            }

    def shown(self) -> dict[str, Any] | None:
        """A copy for the function: what it sets in it is told from what was given."""
        return None if self.decoded is None else self.decoded.copy()

    def untouched(self, name: str, value: object) -> bool:
        """Whether a value is the one that was given; a list or an object is compared anew."""
        if self.decoded is None or name not in self.decoded or self.decoded[name] is not value:
            return False
        return not isinstance(value, list | dict) or decode_value(self.row[name]) == value


class Rows:
    """Takes rows back.

    Args:
        shape: What they look like behind the function.
        added: Columns that the function adds, with their kinds.
    """

    def __init__(self, shape: TableSchema, added: Mapping[str, Kind]) -> None:
        self._columns = shape.columns
        self._names = frozenset(column.name for column in shape.columns)
        self._kinds = {
            column.name: added.get(column.name) or _KINDS.get(column.json)
            for column in shape.columns
        }
        self._added = added

    def new(self, given: Given, returned: Mapping[str, object] | None) -> Row | None:
        """The new row, with every column of the shape."""
        if returned is None:
            return None
        self._check(returned)
        row: Row = {}
        for column in self._columns:
            name = column.name
            if name in returned:
                row[name] = self._value(given, name, returned[name])
            elif name in given.row and (given.decoded is None or name not in given.decoded):
                row[name] = given.row[name]  # the marker of a value that the log did not carry
            elif name in self._added:
                row[name] = NULL
            else:
                raise StepError(
                    "transform.column_missing",
                    f"the function left out column {name}; leave columns out with `drop`",
                )
        return row

    def old(self, given: Given, returned: Mapping[str, object] | None) -> Row | None:
        """The old row, as far as it was returned."""
        if returned is None:
            return None
        self._check(returned)
        return {name: self._value(given, name, value) for name, value in returned.items()}

    def unavailable(
        self, names: tuple[str, ...], returned: Mapping[str, object] | None
    ) -> tuple[str, ...]:
        """The columns that still have no value."""
        return tuple(name for name in names if returned is not None and name not in returned)

    def json_nulls(self, names: tuple[str, ...], row: Row | None) -> tuple[str, ...]:
        """The columns that still hold the JSON null."""
        return tuple(name for name in names if row is not None and is_null(row[name]))

    def _check(self, returned: object) -> None:
        if not isinstance(returned, Mapping):
            raise StepError("transform.python_result", "the function returned a row that is none")
        for name in returned:
            if name not in self._names:
                raise StepError(
                    "transform.column_unknown",
                    f"the function added column {name}, which its `columns` do not name",
                )

    def _value(self, given: Given, name: str, value: object) -> msgspec.Raw:
        if given.untouched(name, value):
            return given.row[name]
        kind = self._kinds[name]
        if kind is None:  # an array
            if value is not None and not isinstance(value, list):
                raise StepError("transform.wrong_type", f"column {name}: the result is no list")
            kind = "json"
        try:
            return made(value, kind)
        except StepError as error:
            raise StepError(error.code, f"column {name}: {error.message}") from None
