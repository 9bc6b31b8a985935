"""The tables that a database could publish, and whether their rows can be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from psycopg import sql

from connectors.postgres.server import Connection, rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from connectors.postgres.setup.patterns import TablePattern

# Permanent tables and partitioned tables of users: what `is_publishable_class` of
# src/backend/catalog/pg_publication.c lets into a publication.
_QUERY = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind = 'p', c.relreplident::text,
       ARRAY(SELECT a.relid::oid::bigint FROM pg_partition_ancestors(c.oid) a
             WHERE c.relispartition AND a.relid <> c.oid),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY n.nspname, c.relname
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the catalog describes it.

    Attributes:
        oid: Its oid.
        schema: Its schema.
        name: Its name.
        partitioned: True when it only routes rows to its partitions.
        ancestors: The partitioned tables above a partition.
        identity: `relreplident`: `d` default, `f` full, `i` index, `n` nothing.
        identified: True when the log tells which row an UPDATE or DELETE is about.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool
    ancestors: tuple[int, ...]
    identity: str
    identified: bool

    @property
    def identifier(self) -> sql.Identifier:
        """Its qualified, quoted name."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def list_tables(connection: Connection) -> list[Table]:
    """Read all tables of the database that could be published, by name.

    Raises:
        RetryableError: The connection broke.
    """
    tables = []
    for oid, schema, name, partitioned, identity, ancestors, primary, index in rows(
        connection, _QUERY
    ):
        identified = identity == "f" or (identity == "d" and primary) or (identity == "i" and index)
        tables.append(
            Table(
                oid=cast("int", oid),
                schema=str(schema),
                name=str(name),
                partitioned=bool(partitioned),
                ancestors=tuple(cast("list[int]", ancestors)),
                identity=str(identity),
                identified=bool(identified),
            )
        )
    return tables


def select(tables: Sequence[Table], patterns: Iterable[TablePattern]) -> list[Table]:
    """The tables that the patterns take; a partition only when no ancestor of it is taken."""
    taken = {
        table.oid: table
        for pattern in patterns
        for table in tables
        if pattern.matches(table.schema, table.name)
    }
    return [
        table
        for table in tables
        if table.oid in taken and not any(oid in taken for oid in table.ancestors)
    ]


def storage(tables: Iterable[Table], selected: Collection[Table]) -> list[Table]:
    """The tables that hold the rows of the selected ones: themselves, or their partitions."""
    oids = {table.oid for table in selected}
    return [
        table
        for table in tables
        if not table.partitioned
        and (table.oid in oids or any(oid in oids for oid in table.ancestors))
    ]
