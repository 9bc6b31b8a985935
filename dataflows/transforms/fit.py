"""What a transform is once it has been fitted to the shape of a table.

    Transform.fit(shape) -> Fit                    once for each version of a table's shape
    Fit.apply(record) -> records                   for each change; none, one or several

Most transforms do the same to `before`, `after` and the key, row by row: `edit_rows` makes one of
those from the function that edits a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from dataflows.failing import StepError
from dataflows.transforms.record import Record, Row, key_of_row, row_of_key

if TYPE_CHECKING:
    from connectors.contracts.changes import Column, TableSchema

Apply: TypeAlias = Callable[[Record], Sequence[Record]]
# Returns the new row; the columns of the second argument hold no value, only a marker.
EditRow: TypeAlias = Callable[[Row, Collection[str]], Row]
# What becomes of a column's name; a column that is not mentioned keeps it.
Names: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Fit:
    """A transform, ready for the changes of one table shape.

    Attributes:
        apply: What it does to a change, which has been opened and has a table; None: nothing.
        table: The shape behind it; None: as before.
        edit_key: What it does to the key, where that can be told from the key alone; None: nothing.
    """

    apply: Apply | None
    table: TableSchema | None = None
    edit_key: EditRow | None = None


class Transform(Protocol):
    """A configured transform."""

    def fit(self, table: TableSchema) -> Fit:
        """Fit it to a table.

        Raises:
            StepError: It cannot be done to this table; so it fails for each of its changes.
        """
        ...


NOTHING = Fit(None)


def edit_rows(
    table: TableSchema,
    edit: EditRow,
    *,
    edits_key: bool,
    unavailable: Names | None = None,
    json_nulls: Names | None = None,
) -> Fit:
    """Do the same to every row of a change.

    Args:
        table: The shape behind it.
        edit: What is done.
        edits_key: Whether it does anything to the columns of the key.
        unavailable: What becomes of columns whose value the log did not carry.
        json_nulls: What becomes of columns that hold the JSON null.
    """

    def apply(record: Record) -> Sequence[Record]:
        before, after, key = record.before, record.after, record.key
        if before is not None:
            before = edit(before, ())
        if after is not None:
            after = edit(after, record.unavailable)
        if edits_key and key is not None:
            key = key_of_row(edit(row_of_key(key), ()))
        record.before, record.after, record.key, record.table = before, after, key, table
        if unavailable and record.unavailable:
            record.unavailable = moved(record.unavailable, unavailable)
        if json_nulls and record.json_nulls:
            record.json_nulls = moved(record.json_nulls, json_nulls)
        return (record,)

    return Fit(apply, table, edit if edits_key else None)


def moved(names: tuple[str, ...], moves: Names) -> tuple[str, ...]:
    """What becomes of these names of columns."""
    return tuple(new for name in names for new in moves.get(name, (name,)))


def present(table: TableSchema, names: Collection[str]) -> list[Column]:
    """The columns of a table that are among these names."""
    return [column for column in table.columns if column.name in names]


def refuse_key(table: TableSchema, names: Collection[str], what: str) -> None:
    """Raise StepError if one of these columns belongs to the table's key."""
    for name in table.key:
        if name in names:
            raise StepError(
                "transform.key_column",
                f"column {name} of {table.schema}.{table.name} belongs to the key, {what}",
            )


def refuse_twice(table: TableSchema, columns: Collection[Column]) -> None:
    """Raise StepError if a name is given to two columns."""
    seen: set[str] = set()
    for column in columns:
        if column.name in seen:
            raise StepError(
                "transform.column_exists",
                f"{table.schema}.{table.name} would have two columns {column.name}",
            )
        seen.add(column.name)
