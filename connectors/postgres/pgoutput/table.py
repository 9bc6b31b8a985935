"""A table as one Relation message describes it, with what the catalog adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.contracts.changes import Column, TableSchema
from connectors.postgres.pgoutput.types import type_name

if TYPE_CHECKING:
    from connectors.postgres.pgoutput.messages import Relation
    from connectors.postgres.pgoutput.types import Catalog, TypeResolver, ValueType


@dataclass(frozen=True, slots=True)
class Table:
    """One version of a table's shape.

    Attributes:
        relation: The message that announced it.
        schema: What travels with the changes.
        types: Of the columns, in order.
        key: The indexes of the key's columns, in the order of the columns.
        identity: The indexes of the columns that an old key tuple carries.
    """

    relation: Relation
    schema: TableSchema
    types: tuple[ValueType, ...]
    key: tuple[int, ...]
    identity: tuple[int, ...]

    @property
    def label(self) -> str:
        """`schema.table`, for messages."""
        return f"{self.relation.schema}.{self.relation.name}"


def describe(relation: Relation, source: str, resolver: TypeResolver, catalog: Catalog) -> Table:
    """Make the table that a Relation message stands for.

    The key is what the replica identity marks, in the columns' order: the log tells no other, and a
    row's key must look the same under every identity. Under FULL every column is marked, so there
    the primary key is asked from the catalog; a table without one, or whose key is not replicated
    whole, has no key.

    Args:
        relation: The message.
        source: The source's name in the configuration.
        resolver: Knows the types.
        catalog: Knows the primary keys.
    """
    columns = relation.columns
    found = resolver.resolve({column.type_oid for column in columns})
    types = tuple(found[column.type_oid] for column in columns)
    identity = tuple(index for index, column in enumerate(columns) if column.key)
    key = identity
    if relation.identity == "f":
        names = set(catalog.primary_key(relation.oid))
        key = tuple(index for index, column in enumerate(columns) if column.name in names)
        key = key if len(key) == len(names) else ()
    schema = TableSchema(
        source=source,
        schema=relation.schema,
        name=relation.name,
        columns=tuple(
            Column(
                name=column.name,
                type=type_name(column.type_oid, type_, column.type_modifier),
                json=type_.json,
                portable=type_.portable,
            )
            for column, type_ in zip(columns, types, strict=True)
        ),
        key=tuple(columns[index].name for index in key),
    )
    return Table(relation, schema, types, key, identity)
