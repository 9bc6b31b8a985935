"""A table as one TABLE_MAP event describes it, ready for its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.contracts.changes import Column, TableSchema
from connectors.errors import ConfigError
from connectors.mysql.binlog.types import describe_types

if TYPE_CHECKING:
    from connectors.mysql.binlog.tablemap import TableMap
    from connectors.mysql.binlog.types import Catalog, ValueType


@dataclass(frozen=True, slots=True)
class Table:
    """One version of a table's shape.

    Attributes:
        schema: What travels with the changes.
        types: Of the columns, in order.
        key: The indexes of the key's columns, in the order of the columns.
    """

    schema: TableSchema
    types: tuple[ValueType, ...]
    key: tuple[int, ...]

    @property
    def label(self) -> str:
        """`schema.table`, for messages."""
        return f"{self.schema.schema}.{self.schema.name}"


def describe(map_: TableMap, source: str, catalog: Catalog, *, mariadb: bool) -> Table:
    """Make the table that a TABLE_MAP event stands for.

    The key is the primary key, in the columns' order; a table without one has no key.

    Raises:
        ConfigError: `mysql.row_metadata`: the log does not tell the columns' names.
        FatalError: `mysql.unknown_type` or `mysql.unknown_collation`.
    """
    if not map_.named:
        raise ConfigError(
            "mysql.row_metadata",
            "this part of the binary log was written without the names of columns"
            " (binlog_row_metadata was not FULL)",
            where=f"{map_.schema}.{map_.name}",
            cure="SET GLOBAL binlog_row_metadata = 'FULL', make it permanent, and capture from here"
            " on under a new source name",
        )
    types = describe_types(map_, catalog, mariadb=mariadb)
    key = tuple(sorted(map_.key))
    schema = TableSchema(
        source=source,
        schema=map_.schema,
        name=map_.name,
        columns=tuple(
            Column(name=column.name, type=type_.name, json=type_.json)
            for column, type_ in zip(map_.columns, types, strict=True)
        ),
        key=tuple(map_.columns[index].name for index in key),
        dialect="mariadb" if mariadb else "mysql",
    )
    return Table(schema, types, key)
