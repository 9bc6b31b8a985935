"""What is to be done in a target, step by step, and why a change makes no step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from connectors.errors import PermanentError

if TYPE_CHECKING:
    import msgspec

    from connectors.contracts.changes import Delivered, TableSchema


class Row(NamedTuple):
    """A row's last state.

    Attributes:
        json: The row as a JSON object.
        missing: Columns whose value is unknown and must be left as it is in the target.
        json_nulls: As in `contracts.Change`.
        deleted: It is marked as deleted, in `json`.
    """

    json: msgspec.Raw | bytes
    missing: tuple[str, ...] = ()
    json_nulls: tuple[str, ...] = ()
    deleted: bool = False


@dataclass(slots=True)
class TableMerge:
    """Deletes, then upserts of one table; a key may be in both (deleted and made again).

    Attributes:
        table: The shape of all rows in here.
        deletes: Keys as JSON objects; with the time, where rows are marked as deleted.
        rows: Rows in the order of their last change.
    """

    table: TableSchema
    deletes: list[bytes]
    rows: list[Row]


@dataclass(slots=True)
class Merge:
    """Set-based deletes and upserts; no key is twice among the deletes or among the rows."""

    tables: list[TableMerge]


@dataclass(slots=True)
class Truncate:
    """Tables that are emptied together.

    Attributes:
        tables: One, where rows are marked as deleted.
        at: When that was, where rows are marked as deleted.
    """

    tables: list[TableSchema]
    at: str = ""


@dataclass(slots=True)
class Move:
    """A row whose key changes and that must stay the same row.

    Attributes:
        table: The row's shape.
        old: The key it had, as a JSON object.
        row: What it is now.
    """

    table: TableSchema
    old: bytes
    row: Row


@dataclass(slots=True)
class Append:
    """Rows that are added to what a history table has.

    Attributes:
        table: The rows' shape.
        rows: In the order of their changes.
    """

    table: TableSchema
    rows: list[Row]


Step = Merge | Truncate | Move | Append


def unreadable(change: Delivered, table: TableSchema, error: Exception) -> PermanentError:
    """The error of a change whose envelope or key is damaged."""
    return PermanentError(
        "postgres.unreadable_change",
        f"sequence {change.sequence} cannot be applied: {error}",
        where=f"{table.schema}.{table.name}",
        cure="the message is damaged: `waxtap dlq discard` it, and write the row again in the "
        "source",
        sequence=change.sequence,
    )


def no_key(table: TableSchema, sequence: int = 0) -> PermanentError:
    """The error of a table whose rows cannot be told apart."""
    return PermanentError(
        "postgres.no_key",
        "rows without a key cannot be found again in the target",
        where=f"{table.schema}.{table.name}",
        cure="give the source table a primary key, or a unique index as its replica identity "
        "(ALTER TABLE … REPLICA IDENTITY USING INDEX …); its changes that the stream holds already "
        "stay without one: leave the table out of the sink's `topics`",
        sequence=sequence,
    )
