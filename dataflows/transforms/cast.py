"""`cast`: columns of another kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field

from dataflows.failing import StepError
from dataflows.transforms.columns import Name
from dataflows.transforms.fit import NOTHING, Fit, edit_rows, present, refuse_key
from dataflows.transforms.kinds import Kind, column_of, converted

if TYPE_CHECKING:
    from collections.abc import Collection

    import msgspec

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Row

# Two values of a key never become the same one as these.
_FOR_KEYS = ("string", "integer")


class CastSpec(BaseModel):
    """Give columns another kind of value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: dict[Name, Kind] = Field(min_length=1, description="column: kind")


class Cast:
    """`cast`: a value that is not of the kind, nor a text of it, is an error; null stays null."""

    def __init__(self, spec: CastSpec) -> None:
        self._kinds = spec.fields

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        unsafe = {name for name, kind in self._kinds.items() if kind not in _FOR_KEYS}
        refuse_key(table, unsafe, f"it can be cast to {' or '.join(_FOR_KEYS)} only")
        kinds = {column.name: self._kinds[column.name] for column in present(table, self._kinds)}
        if not kinds:
            return NOTHING

        def edit(row: Row, absent: Collection[str]) -> Row:
            row = row.copy()
            for name, kind in kinds.items():
                value = row.get(name)
                if value is not None and name not in absent:
                    row[name] = _cast(name, value, kind)
            return row

        columns = tuple(
            column_of(table, column.name, kinds[column.name]) if column.name in kinds else column
            for column in table.columns
        )
        # A JSON null stays one only where the column stays one of JSON.
        lost = [name for name, kind in kinds.items() if kind != "json"]
        return edit_rows(
            replace(table, columns=columns),
            edit,
            edits_key=not kinds.keys().isdisjoint(table.key),
            json_nulls=dict.fromkeys(lost, ()),
        )


def _cast(name: str, value: msgspec.Raw, kind: Kind) -> msgspec.Raw:
    try:
        return converted(value, kind)
    except StepError as error:
        raise StepError(error.code, f"column {name}: {error.message}") from None
