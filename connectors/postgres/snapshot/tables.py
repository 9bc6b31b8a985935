"""The tables that a snapshot reads, and what the catalog says about each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from psycopg import sql

from connectors.errors import ConfigError
from connectors.postgres.pgoutput.messages import Relation, RelationColumn
from connectors.postgres.server import Connection, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What a publication carries, by its view; column lists and row filters are in it from 15 on.
_PUBLISHED = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind = 'p',
       coalesce((SELECT sum(greatest(l.reltuples, 0)) FROM pg_partition_tree(c.oid) t
                 JOIN pg_class l ON l.oid = t.relid WHERE t.isleaf),
                greatest(c.reltuples, 0))::bigint,
       has_schema_privilege(n.oid, 'USAGE'),
       has_table_privilege(c.oid, 'SELECT') OR NOT EXISTS (
           SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
           AND NOT a.attisdropped AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')
           AND coalesce(to_jsonb(p) -> 'attnames' ? a.attname::text, true)),
       row_security_active(c.oid)
FROM pg_publication_tables p
JOIN pg_namespace n ON n.nspname = p.schemaname
JOIN pg_class c ON c.relname = p.tablename AND c.relnamespace = n.oid
WHERE p.pubname = %s
ORDER BY c.oid
"""
_LEAVES = """
SELECT t.relid::oid::bigint FROM pg_partition_tree(%s::oid) t
JOIN pg_class c ON c.oid = t.relid WHERE t.isleaf AND c.relkind = 'r' ORDER BY 1
"""
# Older servers name generated columns in the view, though they never publish them.
# As `logicalrep_write_rel` of src/backend/replication/logical/proto.c writes it: identity FULL
# marks every column, else the identity's index does (`RelationGetIdentityKeyBitmap`).
_COLUMNS = """
SELECT c.relreplident::text, n.nspname::text, c.relname::text,
       a.attname::text, a.atttypid::bigint, a.atttypmod,
       to_jsonb(p) ->> 'rowfilter'
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_publication_tables p
  ON p.pubname = %s AND p.schemaname = n.nspname AND p.tablename = c.relname
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = %s::oid
  AND coalesce(to_jsonb(p) -> 'attnames' ? a.attname::text, true)
  AND (a.attgenerated = ''
       OR (a.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000))
ORDER BY a.attnum
"""
# The index that tells rows apart, and the operators by which it sorts: those of its operator class.
_KEY = """
SELECT a.attname::text, o.nspname::text
FROM pg_class c
JOIN pg_index i ON i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique
  AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
CROSS JOIN LATERAL generate_series(0, i.indnkeyatts - 1) AS k
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[k]
JOIN pg_opclass s ON s.oid = i.indclass[k]
JOIN pg_amop m ON m.amopfamily = s.opcfamily AND m.amoplefttype = s.opcintype
  AND m.amoprighttype = s.opcintype AND m.amopstrategy = 5
JOIN pg_operator p ON p.oid = m.amopopr
JOIN pg_namespace o ON o.oid = p.oprnamespace
WHERE c.oid = %s::oid AND c.relreplident <> 'n'
ORDER BY k
"""
_SIZE = """
SELECT coalesce(pg_relation_filenode(%s::oid), 0)::bigint,
       coalesce(pg_relation_size(%s::oid), 0) / current_setting('block_size')::bigint,
       coalesce((SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = %s::oid), 0)::bigint
"""


@dataclass(frozen=True, slots=True)
class Published:
    """A table, or a partition, that a snapshot reads.

    Attributes:
        oid: Of the table as the log names it.
        schema: The same table's schema.
        name: The same table's name.
        leaf: The partition that is read for it; 0: the table is read itself.
        estimated: How many rows it has by the server's statistics; a partition's are its table's.
        partitioned: Reading it reads its partitions.
    """

    oid: int
    schema: str
    name: str
    leaf: int
    estimated: int
    partitioned: bool

    @property
    def id(self) -> str:
        """Sorts as the tables are read. Oids outlive renaming, and new tables have higher ones."""
        return f"{self.oid:010d}-{self.leaf:010d}"

    @property
    def label(self) -> str:
        """`schema.table`, for messages."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column by which a table is paged.

    Attributes:
        name: Its name.
        index: Its place among the published columns.
        operators: The schema of the operators that its index sorts by.
    """

    name: str
    index: int
    operators: str


@dataclass(frozen=True, slots=True)
class Described:
    """A table as one snapshot of the database has it.

    Attributes:
        relation: What the log would announce it as.
        key: What it is paged by; empty: by where its rows lie.
        row_filter: The publication's condition, as the server prints it; empty: none.
        filenode: Which file it lies in, where it is paged by where its rows lie.
        pages: How many pages that has.
        tuples: How many rows there are in it by the server's statistics; 0: nobody has counted.
    """

    relation: Relation
    key: tuple[KeyColumn, ...]
    row_filter: str
    filenode: int
    pages: int
    tuples: int

    def restricted(self, condition: str) -> Described:
        """The table with the rows that fulfil a condition as well."""
        # A comment at its end must not reach further.
        both = f"({self.row_filter}) AND ({condition}\n)" if self.row_filter else condition + "\n"
        return replace(self, row_filter=both)


def published(
    connection: Connection,
    publication: str,
    wanted: Callable[[str, str], bool],
    setting: str = "snapshot: never",
) -> list[Published]:
    """The tables that a snapshot of a publication reads, in order.

    Args:
        connection: To the server.
        publication: Its name.
        wanted: Whether a table (schema, name) is captured.
        setting: What spares the reading of tables, for the error.

    Raises:
        ConfigError: `postgres.select_right`: the role may not read them; `postgres.row_security`:
            policies hide rows from it; names every one.
        RetryableError: The connection broke.
    """
    found = rows(connection, _PUBLISHED, publication)
    tables: list[Published] = []
    closed: list[str] = []
    schemas: list[str] = []
    veiled: list[str] = []
    for oid, schema, name, partitioned, estimated, usable, readable, hiding in found:
        if not wanted(str(schema), str(name)):
            continue
        identifier = sql.Identifier(str(schema), str(name)).as_string()
        if not usable:
            schemas.append(sql.Identifier(str(schema)).as_string())
        if not readable:
            closed.append(identifier)
        if hiding:
            veiled.append(identifier)
        table = Published(
            oid=cast("int", oid),
            schema=str(schema),
            name=str(name),
            leaf=0,
            estimated=cast("int", estimated),
            partitioned=bool(partitioned),
        )
        tables += _parts(connection, table)
    if closed or schemas:
        raise _no_right(connection, closed, sorted(set(schemas)), setting)
    if veiled:
        raise _hidden(connection, veiled, setting)
    return sorted(tables, key=lambda table: table.id)


def describe(connection: Connection, publication: str, table: Published) -> Described | None:
    """What the catalog says about a table now; None: it is no longer published, or gone.

    Raises:
        RetryableError: The connection broke.
    """
    found = rows(connection, _COLUMNS, publication, table.oid)
    if not found:
        return None
    identity, schema, name, *_, row_filter = found[0]
    names = [str(row[3]) for row in found]
    key = _key(connection, table.oid, names)
    marked = {column.name for column in key}
    if identity == "f":
        marked = set(names)
    relation = Relation(
        oid=table.oid,
        schema=str(schema),
        name=str(name),
        identity=str(identity),
        columns=tuple(
            RelationColumn(str(column), cast("int", type_), cast("int", modifier), column in marked)
            for _, _, _, column, type_, modifier, _ in found
        ),
    )
    filenode = pages = tuples = 0
    if table.leaf or not key:
        oid = table.leaf or table.oid
        ((filenode, pages, tuples),) = cast(
            "list[tuple[int, int, int]]", rows(connection, _SIZE, oid, oid, oid)
        )
        key = ()
    return Described(relation, key, str(row_filter or ""), filenode, pages, tuples)


def _parts(connection: Connection, table: Published) -> list[Published]:
    """The table itself; the partitions of one that cannot be paged by a key."""
    if not table.partitioned or rows(connection, _KEY, table.oid):
        return [table]
    return [
        Published(
            oid=table.oid,
            schema=table.schema,
            name=table.name,
            leaf=cast("int", leaf),
            estimated=0 if number else table.estimated,
            partitioned=False,
        )
        for number, (leaf,) in enumerate(rows(connection, _LEAVES, table.oid))
    ]


def _key(connection: Connection, oid: int, names: Sequence[str]) -> tuple[KeyColumn, ...]:
    found = rows(connection, _KEY, oid)
    if any(name not in names for name, _ in found):
        return ()
    return tuple(
        KeyColumn(str(name), names.index(str(name)), str(operators)) for name, operators in found
    )


def _role(connection: Connection) -> str:
    ((role,),) = rows(connection, "SELECT current_user::text")
    return str(role)


def _hidden(connection: Connection, tables: list[str], setting: str) -> ConfigError:
    role = _role(connection)
    return ConfigError(
        "postgres.row_security",
        f"row-level security hides rows of {', '.join(tables)} from the role {role}",
        where=setting.partition(":")[0],
        cure=f"ALTER ROLE {sql.Identifier(role).as_string()} BYPASSRLS; or set `{setting}`",
    )


def _no_right(
    connection: Connection, tables: list[str], schemas: list[str], setting: str
) -> ConfigError:
    role = _role(connection)
    to = sql.Identifier(role).as_string()
    grants = [f"GRANT USAGE ON SCHEMA {', '.join(schemas)} TO {to}"] if schemas else []
    if tables:
        grants.append(f"GRANT SELECT ON {', '.join(tables)} TO {to}")
    return ConfigError(
        "postgres.select_right",
        f"the role {role} may not read what is to be read: {', '.join(tables or schemas)}",
        where=setting.partition(":")[0],
        cure=f"{'; '.join(grants)}; or set `{setting}`",
    )
