"""What the target's own catalog says of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from connectors.errors import PermanentError
from connectors.postgres.target.statements import Field

if TYPE_CHECKING:
    from connectors.contracts.changes import Column, TableSchema
    from connectors.postgres.target.layout import Name
    from connectors.postgres.target.session import Session

_TABLE = (
    b"SELECT c.oid, c.relkind::text FROM pg_class AS c JOIN pg_namespace AS n"
    b" ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2"
)
_COLUMNS = (
    b"SELECT attname, format_type(atttypid, atttypmod), attidentity = 'a', attgenerated <> ''"
    b" FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
)
# Only these can answer ON CONFLICT: unique at once, over plain columns, over every row.
_UNIQUE = (
    b"SELECT array_agg(a.attname::text) FROM pg_index AS i, unnest(i.indkey[0:i.indnkeyatts - 1])"
    b" AS k (attnum) JOIN pg_attribute AS a ON a.attnum = k.attnum"
    b" WHERE a.attrelid = i.indrelid AND i.indrelid = $1 AND i.indisunique AND i.indimmediate"
    b" AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL GROUP BY i.indexrelid"
)
_PRIMARY = (
    b"SELECT conname::text, COALESCE(obj_description(oid, 'pg_constraint'), '')"
    b" FROM pg_constraint WHERE contype = 'p' AND conrelid = $1"
)
_REFERENCES = (
    b"SELECT n.nspname, c.relname FROM pg_constraint AS f JOIN pg_class AS c"
    b" ON c.oid = f.confrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    b" WHERE f.contype = 'f' AND f.conrelid = $1"
)
_REFERENCED = b"SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = $1)"
# Of a partitioned table with its partitions.
_SIZE = (
    b"SELECT (pg_total_relation_size($1) + COALESCE(sum(pg_total_relation_size(relid)), 0))::bigint"
    b" FROM pg_partition_tree($1) WHERE relid <> $1"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A table as it is in the target.

    Attributes:
        oid: Its number in the catalog.
        fields: Its columns that can be written, by name.
        generated: The names of the others.
    """

    oid: int
    fields: dict[str, Field]
    generated: frozenset[str]

    def lacks(self, table: TableSchema) -> list[Column]:
        """The columns of a shape that it does not have."""
        return [
            column
            for column in table.columns
            if column.name not in self.fields and column.name not in self.generated
        ]


class PrimaryKey(NamedTuple):
    """A primary key's constraint.

    Attributes:
        name: Its name.
        comment: What `COMMENT ON` says of it; empty: nothing.
    """

    name: str
    comment: str


def find(session: Session, table: TableSchema) -> Found | None:
    """The table of this name; None: there is none.

    Raises:
        PermanentError: `postgres.not_a_table`: something else has its name.
    """
    row = session.execute(_TABLE, (table.schema, table.name)).fetchone()
    if row is None:
        return None
    oid, kind = cast("tuple[int, str]", row)
    if kind not in ("r", "p"):
        raise PermanentError(
            "postgres.not_a_table",
            f"what the target has under this name is no table (relkind {kind})",
            where=f"{table.schema}.{table.name}",
            cure="rename it in the target",
        )
    rows = cast("list[tuple[str, str, bool, bool]]", session.execute(_COLUMNS, (oid,)).fetchall())
    kinds = {column.name: column.json for column in table.columns}
    fields = {
        name: Field(name, kinds.get(name, "string"), type_, fixed)
        for name, type_, fixed, generated in rows
        if not generated
    }
    return Found(oid, fields, frozenset(row[0] for row in rows if row[3]))


def exists(session: Session, schema: str) -> bool:
    """Whether there is a schema of this name."""
    query = b"SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"
    return session.execute(query, (schema,)).fetchone() == (True,)


def is_key(session: Session, found: Found, columns: tuple[str, ...]) -> bool:
    """Whether `ON CONFLICT` over exactly these columns is possible, and they can be written."""
    wanted = set(columns)
    unique = cast("list[tuple[list[str]]]", session.execute(_UNIQUE, (found.oid,)).fetchall())
    fits = any(set(index) == wanted for (index,) in unique)
    return fits and not found.generated.intersection(wanted)


def primary_key(session: Session, found: Found) -> PrimaryKey | None:
    """The table's primary key; None: it has none."""
    row = cast("tuple[str, str] | None", session.execute(_PRIMARY, (found.oid,)).fetchone())
    return None if row is None else PrimaryKey(*row)


def references(session: Session, found: Found) -> frozenset[Name]:
    """The tables that foreign keys of this one point to."""
    return frozenset(cast("list[Name]", session.execute(_REFERENCES, (found.oid,)).fetchall()))


def referenced(session: Session, found: Found) -> bool:
    """Whether foreign keys point to the table."""
    return session.execute(_REFERENCED, (found.oid,)).fetchone() == (True,)


def size(session: Session, found: Found) -> int:
    """The table's bytes, with its indexes, large values and partitions."""
    ((size_,),) = cast("list[tuple[int]]", session.execute(_SIZE, (found.oid,)).fetchall())
    return size_
