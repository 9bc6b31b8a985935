"""The target's tables: what they look like, and that they fit what the changes bring."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace
from psycopg import sql

from connectors.errors import PermanentError
from connectors.postgres.target import ddl
from connectors.postgres.target.offsets import CREATION_LOCK
from connectors.postgres.target.statements import Field, Form
from connectors.postgres.target.steps import no_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Column, TableSchema
    from connectors.postgres.spec import SinkSpec
    from connectors.postgres.target.layout import Layout, Name
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
_PRIMARY = b"SELECT conname::text FROM pg_constraint WHERE contype = 'p' AND conrelid = $1"
_REFERENCES = (
    b"SELECT n.nspname, c.relname FROM pg_constraint AS f JOIN pg_class AS c"
    b" ON c.oid = f.confrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    b" WHERE f.contype = 'f' AND f.conrelid = $1"
)
_REFERENCED = b"SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = $1)"


@dataclass(frozen=True, slots=True)
class _Found:
    """A table as it is in the target."""

    oid: int
    fields: dict[str, Field]
    generated: frozenset[str]

    def lacks(self, table: TableSchema) -> list[Column]:
        return [
            column
            for column in table.columns
            if column.name not in self.fields and column.name not in self.generated
        ]


@dataclass(frozen=True, slots=True)
class TargetTable:
    """A target table that fits a shape of the source's.

    Attributes:
        form: What is written to it.
        references: Tables that its foreign keys point to.
        referenced: Foreign keys point to it.
    """

    form: Form
    references: frozenset[Name]
    referenced: bool


class Target:
    """The tables of one target; each shape is checked once.

    Args:
        spec: Whether tables and columns may be created.
        layout: Where they are, and what they have beside the source's columns.
    """

    def __init__(self, spec: SinkSpec, layout: Layout) -> None:
        self._spec = spec
        self._layout = layout
        self._tables: dict[str, TargetTable] = {}

    def __getitem__(self, table: TableSchema) -> TargetTable:
        return self._tables[table.hash]

    def referenced(self, table: TableSchema) -> bool:
        """True if foreign keys of the target point to the table."""
        return self._tables[table.hash].referenced

    def tied(self, table: TableSchema) -> bool:
        """True if foreign keys of the target point to the table or from it."""
        found = self._tables[table.hash]
        return found.referenced or bool(found.references)

    def forget(self) -> None:
        """Look at every table anew when it is needed next."""
        self._tables.clear()

    def prepare(self, session: Session, table: TableSchema) -> None:
        """Make sure that a table exists and fits, in a transaction of its own unless there is one.

        Raises:
            PermanentError: A table or column is missing and may not be created, or the key does
                not fit.
            psycopg.Error: From the server.
        """
        if not (table.key or self._layout.append):
            raise no_key(table)
        if table.hash not in self._tables:
            schema, name = self._layout.name(table)
            wanted = replace(
                table,
                schema=schema,
                name=name,
                columns=self._layout.columns(table),
                key=self._layout.key(table),
            )
            with session.transaction():
                # type names come out qualified, unless they are the server's own
                (path,) = session.execute(b"SELECT current_setting('search_path')").fetchone() or ()
                session.execute(b"SET LOCAL search_path = pg_catalog")
                found = self._fitting(session, wanted)
                self._tables[table.hash] = _checked(session, wanted, found, self._layout.deleted)
                # within a larger transaction it would stay
                session.execute(b"SELECT set_config('search_path', $1, true)", (path,))

    def parents_first(self, tables: Sequence[TableSchema]) -> list[TableSchema]:
        """Order tables so that rows come after the rows that they refer to, as far as possible."""
        by_name: dict[Name, list[TableSchema]] = {}
        for table in tables:
            form = self[table].form
            by_name.setdefault((form.schema, form.name), []).append(table)
        graph = {
            name: self[same[0]].references.intersection(by_name).difference([name])
            for name, same in by_name.items()
        }
        try:
            return [t for name in TopologicalSorter(graph).static_order() for t in by_name[name]]
        except CycleError:
            return list(tables)

    def _fitting(self, session: Session, table: TableSchema) -> _Found:
        found = _find(session, table)
        if found is not None and not found.lacks(table):
            return found
        if found is not None and self._spec.schema_changes == "ignore":
            return found
        if self._spec.create_tables if found is None else self._spec.schema_changes == "add":
            session.execute(b"SELECT pg_advisory_xact_lock($1)", [CREATION_LOCK])
            found = _find(session, table)  # another writer may have been faster
        lacking = found.lacks(table) if found else table.columns
        own = self._layout.own
        types = [
            ddl.type_of(session, column, "postgresql" if column in own else table.dialect)
            for column in lacking
        ]
        if found is None:
            statement = ddl.create(table, types)
            if not self._spec.create_tables:
                raise PermanentError(
                    "postgres.no_table",
                    "the table does not exist in the target",
                    where=f"{table.schema}.{table.name}",
                    cure=f"create it, or set create_tables: true: {statement.as_string(session)}",
                )
            if not _exists(session, table.schema):
                session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(table.schema)))
            session.execute(statement)
        elif lacking:
            statement = ddl.add(table, lacking, types)
            if self._spec.schema_changes == "refuse":
                names = ", ".join(column.name for column in lacking)
                raise PermanentError(
                    "postgres.no_column",
                    f"the target lacks the columns {names}",
                    where=f"{table.schema}.{table.name}",
                    cure=f"set schema_changes: add or ignore, or {statement.as_string(session)}",
                )
            session.execute(statement)
        made = _find(session, table)
        if made is None:
            raise PermanentError(
                "postgres.no_table",
                "the table vanished while it was looked at",
                where=f"{table.schema}.{table.name}",
            )
        return made


def _find(session: Session, table: TableSchema) -> _Found | None:
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
    return _Found(oid, fields, frozenset(row[0] for row in rows if row[3]))


def _checked(session: Session, table: TableSchema, found: _Found, deleted: str) -> TargetTable:
    where = f"{table.schema}.{table.name}"
    if table.key:
        _check_key(session, table, found, where)
    if deleted and deleted not in found.fields:
        raise PermanentError(
            "postgres.no_column",
            f"soft deletes need the column {deleted}",
            where=where,
            cure=ddl.add(
                table, [c for c in table.columns if c.name == deleted], ["timestamptz"]
            ).as_string(session),
        )
    fields = tuple(found.fields[c.name] for c in table.columns if c.name in found.fields)
    references = cast("list[Name]", session.execute(_REFERENCES, (found.oid,)).fetchall())
    referenced = session.execute(_REFERENCED, (found.oid,)).fetchone() == (True,)
    form = Form(table.schema, table.name, table.key, fields, deleted)
    return TargetTable(form, frozenset(references), referenced)


def _check_key(session: Session, table: TableSchema, found: _Found, where: str) -> None:
    key = set(table.key)
    unique = cast("list[tuple[list[str]]]", session.execute(_UNIQUE, (found.oid,)).fetchall())
    fits = any(set(columns) == key for (columns,) in unique)
    if not fits or found.generated.intersection(key):
        primary = cast("tuple[str] | None", session.execute(_PRIMARY, (found.oid,)).fetchone())
        drop = sql.SQL("DROP CONSTRAINT {}, ").format(sql.Identifier(primary[0])) if primary else ""
        statement = sql.SQL("ALTER TABLE {} {}ADD PRIMARY KEY ({})").format(
            sql.Identifier(table.schema, table.name),
            drop or sql.SQL(""),
            sql.SQL(", ").join(map(sql.Identifier, table.key)),
        )
        raise PermanentError(
            "postgres.key_mismatch",
            f"the target has no primary key or unique index on exactly {', '.join(table.key)}",
            where=where,
            cure=statement.as_string(session),
        )


def _exists(session: Session, schema: str) -> bool:
    query = b"SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"
    return session.execute(query, (schema,)).fetchone() == (True,)
