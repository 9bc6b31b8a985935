"""The target's tables: what they look like, and that they fit what the changes bring."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from psycopg import sql

from connectors.errors import PermanentError
from connectors.postgres.target import catalog, ddl, following
from connectors.postgres.target.offsets import CREATION_LOCK
from connectors.postgres.target.statements import Form
from connectors.postgres.target.steps import no_key
from connectors.postgres.target.widening import widening

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from connectors.contracts.changes import TableSchema
    from connectors.postgres.spec import SinkSpec
    from connectors.postgres.target.catalog import Found
    from connectors.postgres.target.following import Retyped
    from connectors.postgres.target.layout import Layout, Name
    from connectors.postgres.target.session import Session


@dataclass(frozen=True, slots=True)
class TargetTable:
    """A target table that fits a shape of the source's.

    Attributes:
        form: What is written to it.
        references: Tables that its foreign keys point to.
        referenced: Foreign keys point to it.
        retyped: Columns that do not hold all values of the source's.
        cure: The statement that makes them hold all of them; empty: they do.
    """

    form: Form
    references: frozenset[Name]
    referenced: bool
    retyped: tuple[Retyped, ...] = ()
    cure: str = ""


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

    def retyped(self, table: TableSchema) -> tuple[tuple[Retyped, ...], str]:
        """Columns that do not hold all values of the source's, and the statement that cures it."""
        found = self._tables[table.hash]
        return found.retyped, found.cure

    def prepare(self, session: Session, table: TableSchema, position: str) -> None:
        """Make sure that a table exists and fits, in a transaction of its own unless there is one.

        Args:
            session: To the target.
            table: The shape that changes were written under.
            position: Of the first of them, in the source.

        Raises:
            PermanentError: A table or column is missing and may not be created, or the key does
                not fit.
            psycopg.Error: From the server.
        """
        if not (table.key or self._layout.append):
            raise no_key(table)
        if table.hash not in self._tables:
            wanted = self._layout.shape(table)
            refused: PermanentError | None = None
            with session.transaction():
                # type names come out qualified, unless they are the server's own
                (path,) = session.execute(b"SELECT current_setting('search_path')").fetchone() or ()
                session.execute(b"SET LOCAL search_path = pg_catalog")
                with following.patience(session):
                    try:
                        self._tables[table.hash] = self._fitting(session, wanted, position)
                    except PermanentError as error:
                        refused = error  # what was made before stays: the cure builds on it
                # within a larger transaction it would stay
                session.execute(b"SELECT set_config('search_path', $1, true)", (path,))
            if refused is not None:
                raise refused

    def mend(self, session: Session, table: TableSchema, error: psycopg.Error) -> bool:
        """After a refused row: take away what stands against it, if the source no longer has it.

        Returns:
            Whether the same row may be tried again.

        Raises:
            psycopg.Error: A transient failure.
        """
        if self._spec.schema_changes != "add":
            return False
        return following.permit_null(session, self._layout.shape(table), error)

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

    def _fitting(self, session: Session, table: TableSchema, position: str) -> TargetTable:
        found = self._complete(session, table, position)
        retyped = following.retyped(session, table, found, self._layout)
        if retyped and self._spec.schema_changes == "add":
            session.execute(b"SELECT pg_advisory_xact_lock($1)", [CREATION_LOCK])
            found = _found(session, table)  # another writer may have been faster
            retyped = following.retyped(session, table, found, self._layout)
            following.widen(session, table, found, retyped, self._spec.max_rewrite)
            found = _found(session, table)
            retyped = following.retyped(session, table, found, self._layout)
        if self._spec.schema_changes == "refuse":
            _refuse_narrow(session, table, retyped)
        if table.key and not catalog.is_key(session, found, table.key):
            self._rekey(session, table, found, position)
        cure = ""
        if retyped:
            types = [(column.name, column.wanted) for column in retyped]
            cure = ddl.retype(table, types, cast=True).as_string(session)
        return _checked(session, table, found, self._layout.deleted, retyped, cure)

    def _complete(self, session: Session, table: TableSchema, position: str) -> Found:
        """The table with all columns, as far as they may be made."""
        found = catalog.find(session, table)
        if found is not None and not found.lacks(table):
            return found
        if found is not None and self._spec.schema_changes == "ignore":
            return found
        if self._spec.create_tables if found is None else self._spec.schema_changes == "add":
            session.execute(b"SELECT pg_advisory_xact_lock($1)", [CREATION_LOCK])
            found = catalog.find(session, table)  # another writer may have been faster
        lacking = found.lacks(table) if found else table.columns
        types = [
            ddl.type_of(session, column, self._layout.dialect(table, column)) for column in lacking
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
            if not catalog.exists(session, table.schema):
                session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(table.schema)))
            session.execute(statement)
            if table.key:
                following.mark_key(session, table, position)
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
        return _found(session, table)

    def _rekey(self, session: Session, table: TableSchema, found: Found, position: str) -> None:
        reason = "schema_changes is not add"
        if self._spec.schema_changes == "add":
            session.execute(b"SELECT pg_advisory_xact_lock($1)", [CREATION_LOCK])
            reason = following.rekey(session, table, found, position, self._spec.max_rewrite)
            if not reason or catalog.is_key(session, found, table.key):
                return
        primary = catalog.primary_key(session, found)
        raise PermanentError(
            "postgres.key_mismatch",
            f"the target has no primary key or unique index on exactly {', '.join(table.key)}"
            f" ({reason})",
            where=f"{table.schema}.{table.name}",
            cure=ddl.rekey(table, primary and primary.name).as_string(session),
        )


def _found(session: Session, table: TableSchema) -> Found:
    found = catalog.find(session, table)
    if found is None:
        raise PermanentError(
            "postgres.no_table",
            "the table vanished while it was looked at",
            where=f"{table.schema}.{table.name}",
        )
    return found


def _refuse_narrow(session: Session, table: TableSchema, retyped: Sequence[Retyped]) -> None:
    narrow = [column for column in retyped if widening(column.found, column.wanted) is not None]
    if narrow:
        statement = ddl.retype(table, [(column.name, column.wanted) for column in narrow])
        raise PermanentError(
            "postgres.narrow_column",
            "; ".join(map(str, narrow)),
            where=f"{table.schema}.{table.name}",
            cure=f"set schema_changes: add or ignore, or {statement.as_string(session)}",
        )


def _checked(
    session: Session,
    table: TableSchema,
    found: Found,
    deleted: str,
    retyped: tuple[Retyped, ...],
    cure: str,
) -> TargetTable:
    if deleted and deleted not in found.fields:
        raise PermanentError(
            "postgres.no_column",
            f"soft deletes need the column {deleted}",
            where=f"{table.schema}.{table.name}",
            cure=ddl.add(
                table, [c for c in table.columns if c.name == deleted], ["timestamptz"]
            ).as_string(session),
        )
    fields = tuple(found.fields[c.name] for c in table.columns if c.name in found.fields)
    form = Form(table.schema, table.name, table.key, fields, deleted)
    return TargetTable(
        form,
        catalog.references(session, found),
        catalog.referenced(session, found),
        retyped,
        cure,
    )
