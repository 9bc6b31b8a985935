"""Transforms of columns as a whole: `rename`, `drop` and `keep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field

from dataflows.transforms.fit import (
    NOTHING,
    Fit,
    edit_rows,
    present,
    refuse_key,
    refuse_twice,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Row

Name = Annotated[str, Field(min_length=1)]


class RenameSpec(BaseModel):
    """Give columns other names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: dict[Name, Name] = Field(min_length=1, description="old name: new name")


class DropSpec(BaseModel):
    """Leave columns out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: tuple[Name, ...] = Field(min_length=1)


class KeepSpec(BaseModel):
    """Leave every other column out, but those of the key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: tuple[Name, ...] = Field(min_length=1)


class Rename:
    """`rename`: the columns keep their places; one of the key is renamed there, too."""

    def __init__(self, spec: RenameSpec) -> None:
        self._names = spec.fields

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        names = {column.name: self._names[column.name] for column in present(table, self._names)}
        if not names:
            return NOTHING
        columns = tuple(replace(c, name=names.get(c.name, c.name)) for c in table.columns)
        refuse_twice(table, columns)
        key = tuple(names.get(name, name) for name in table.key)
        moves = {old: (new,) for old, new in names.items()}
        old_names = tuple(column.name for column in table.columns)
        new_names = tuple(column.name for column in columns)

        def edit(row: Row, _absent: Collection[str]) -> Row:
            if tuple(row) == old_names:  # it is whole, as most are
                return dict(zip(new_names, row.values(), strict=True))
            return {names.get(name, name): value for name, value in row.items()}

        return edit_rows(
            replace(table, columns=columns, key=key),
            edit,
            edits_key=key != table.key,
            unavailable=moves,
            json_nulls=moves,
        )


class Drop:
    """`drop`; refuses a table of whose key it would take a column."""

    def __init__(self, spec: DropSpec) -> None:
        self._names = frozenset(spec.fields)

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        refuse_key(table, self._names, "it cannot be dropped")
        return _without(table, [column.name for column in present(table, self._names)])


class Keep:
    """`keep`: the columns of the key stay, whether named or not."""

    def __init__(self, spec: KeepSpec) -> None:
        self._names = frozenset(spec.fields)

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        kept = self._names.union(table.key)
        return _without(table, [c.name for c in table.columns if c.name not in kept])


def _without(table: TableSchema, names: Collection[str]) -> Fit:
    if not names:
        return NOTHING
    gone = frozenset(names)
    columns = tuple(column for column in table.columns if column.name not in gone)
    moves: dict[str, tuple[str, ...]] = dict.fromkeys(gone, ())

    def edit(row: Row, _absent: Collection[str]) -> Row:
        return {name: value for name, value in row.items() if name not in gone}

    return edit_rows(
        replace(table, columns=columns),
        edit,
        edits_key=False,
        unavailable=moves,
        json_nulls=moves,
    )
