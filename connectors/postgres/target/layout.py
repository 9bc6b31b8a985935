"""Where a table's rows go in the target, and what its table there has beside the source's columns.

Free of I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from connectors.contracts.changes import Column
from connectors.errors import PermanentError
from connectors.postgres.names import parse_name

if TYPE_CHECKING:
    from connectors.contracts.changes import TableSchema
    from connectors.postgres.spec import SinkSpec

Name = tuple[str, str]

# What a history table tells of each change.
HISTORY = (
    Column("_cdc_op", "text"),
    Column("_cdc_source", "text"),
    Column("_cdc_sequence", "bigint", "number"),
    Column("_cdc_position", "text"),
    Column("_cdc_transaction", "text"),
    Column("_cdc_committed_at", "timestamptz"),
    Column("_cdc_before", "json", "json"),
    Column("_cdc_unavailable", "text[]", "array"),
)


class Layout:
    """What a sink's configuration makes of the source's tables.

    Attributes:
        append: The tables are histories: a row for each change, and no key.
        deleted: The column that marks deleted rows; empty: rows are deleted.
        own: The columns that the sink adds to each table.

    Args:
        spec: The target.
    """

    def __init__(self, spec: SinkSpec) -> None:
        self._schema = spec.target_schema
        self._tables = {parse_name(source): parse_name(to) for source, to in spec.tables.items()}
        self.append = spec.mode == "append"
        self.deleted = spec.deleted_column if spec.deletes == "soft" else ""
        self.own: tuple[Column, ...] = ()
        if self.append:
            self.own = HISTORY
        elif self.deleted:
            self.own = (Column(self.deleted, "timestamptz"),)

    def name(self, table: TableSchema) -> Name:
        """Schema and name of the target's table."""
        schema = self._schema or table.schema
        place = self._tables.get((table.schema, table.name), (table.name,))
        return (place[0], place[1]) if len(place) > 1 else (schema, place[0])

    def key(self, table: TableSchema) -> tuple[str, ...]:
        """What the target's table must have a unique index on; empty: nothing."""
        return () if self.append else table.key

    def shape(self, table: TableSchema) -> TableSchema:
        """What the target's table is to be: names, columns and key.

        Raises:
            PermanentError: As `columns`.
        """
        schema, name = self.name(table)
        return replace(
            table, schema=schema, name=name, columns=self.columns(table), key=self.key(table)
        )

    def dialect(self, table: TableSchema, column: Column) -> str:
        """Whose type names a column of the target's table is declared by."""
        return "postgresql" if column in self.own else table.dialect

    def columns(self, table: TableSchema) -> tuple[Column, ...]:
        """All columns of the target's table.

        Raises:
            PermanentError: `postgres.reserved_column`: the source has one that is the sink's.
        """
        taken = {column.name for column in self.own}.intersection(c.name for c in table.columns)
        if taken:
            raise PermanentError(
                "postgres.reserved_column",
                f"the source's column {min(taken)} has the name of one that the sink writes",
                where=f"{table.schema}.{table.name}",
                cure="rename it by a transform of the sink; with soft deletes, set deleted_column",
            )
        return (*table.columns, *self.own)
