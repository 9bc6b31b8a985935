"""The publication: what the server decodes for a source.

A publication that Waxtap creates carries a comment that says so; only such a one is ever altered or
dropped. What it lists depends on the patterns and on the role:

- `*.*`, superuser: `FOR ALL TABLES`;
- patterns that take whole schemas, superuser, PostgreSQL 15+: `FOR TABLES IN SCHEMA` for those;
- otherwise `FOR TABLE ONLY`, a list that `PublicationWatch` keeps up to date.

The first two take in later tables without a gap. All publish partitions under their root's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import psycopg
from psycopg import errors, sql

from connectors.errors import ConfigError, RetryableError
from connectors.postgres.server import Connection, one_line, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from connectors.postgres.setup.inventory import Table
    from connectors.postgres.setup.patterns import TablePattern

_OPERATIONS = ("insert", "update", "delete", "truncate")
_SCHEMAS_SINCE = 150000


@dataclass(frozen=True, slots=True)
class Scope:
    """What a publication names.

    Attributes:
        everything: `FOR ALL TABLES`.
        schemas: Names of `FOR TABLES IN SCHEMA`.
        tables: Tables (schema, name) listed one by one.
    """

    everything: bool = False
    schemas: frozenset[str] = frozenset()
    tables: frozenset[tuple[str, str]] = frozenset()

    def clause(self) -> sql.Composable:
        """What follows `FOR`, `SET` or `ADD` in SQL."""
        if self.everything:
            return sql.SQL("ALL TABLES")
        parts: list[sql.Composable] = []
        if self.tables:
            # ONLY: a table's inheritance children are listed on their own account, if they match.
            names = [sql.Identifier(*table) for table in sorted(self.tables)]
            parts.append(sql.SQL("TABLE ONLY ") + sql.SQL(", ONLY ").join(names))
        if self.schemas:
            schemas = [sql.Identifier(schema) for schema in sorted(self.schemas)]
            parts.append(sql.SQL("TABLES IN SCHEMA ") + sql.SQL(", ").join(schemas))
        return sql.SQL(", ").join(parts)


@dataclass(frozen=True, slots=True)
class Publication:
    """An existing publication.

    Attributes:
        name: Its name.
        comment: Its comment; ours begins with `MARK`.
        operations: What it publishes of insert, update, delete, truncate.
        via_root: Whether partitions appear under their root's name.
        scope: What it names.
        published: (schema, name) of every table whose changes it carries.
        oid: Another one: it was dropped and made again.
    """

    name: str
    comment: str
    operations: frozenset[str]
    via_root: bool
    scope: Scope
    published: frozenset[tuple[str, str]] = field(repr=False)
    oid: int = 0


MARK = "managed by waxtap"


def mark(source: str, slot: str) -> str:
    """The comment of a publication that this source owns; names the slot that belongs to it."""
    return f"{MARK}: source={source} slot={slot}"


def find(connection: Connection, name: str) -> Publication | None:
    """Read a publication; None when there is none of that name."""
    found = rows(
        connection,
        "SELECT oid::bigint, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate,"
        " pubviaroot, coalesce(obj_description(oid, 'pg_publication'), '')"
        " FROM pg_publication WHERE pubname = %s",
        name,
    )
    if not found:
        return None
    oid, everything, *allowed, via_root, comment = found[0]
    listed = rows(
        connection,
        "SELECT n.nspname::text, c.relname::text FROM pg_publication_rel r"
        " JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE r.prpubid = %s",
        oid,
    )
    schemas: list[tuple[object, ...]] = []
    if connection.info.server_version >= _SCHEMAS_SINCE:
        schemas = rows(
            connection,
            "SELECT n.nspname::text FROM pg_publication_namespace p"
            " JOIN pg_namespace n ON n.oid = p.pnnspid WHERE p.pnpubid = %s",
            oid,
        )
    published = rows(
        connection,
        "SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = %s",
        name,
    )
    return Publication(
        name=name,
        comment=str(comment),
        operations=frozenset(op for op, on in zip(_OPERATIONS, allowed, strict=True) if on),
        via_root=bool(via_root),
        scope=Scope(
            everything=bool(everything),
            schemas=frozenset(str(schema) for (schema,) in schemas),
            tables=frozenset(cast("list[tuple[str, str]]", listed)),
        ),
        published=frozenset(cast("list[tuple[str, str]]", published)),
        oid=cast("int", oid),
    )


def desired_scope(
    connection: Connection, patterns: Sequence[TablePattern], selected: Iterable[Table]
) -> Scope:
    """What a publication of ours should name, by the rules above."""
    ((superuser,),) = rows(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    tables = frozenset((table.schema, table.name) for table in selected)
    if superuser and any(pattern.every for pattern in patterns):
        return Scope(everything=True)
    schemas_known = connection.info.server_version >= _SCHEMAS_SINCE
    if not superuser or not schemas_known or not all(pattern.whole for pattern in patterns):
        return Scope(tables=tables)
    names = rows(connection, "SELECT nspname::text FROM pg_namespace")
    schemas = frozenset(
        str(name)
        for (name,) in names
        if any(pattern.matches_schema(str(name)) for pattern in patterns)
    )
    return Scope(schemas=schemas)


def create(connection: Connection, name: str, scope: Scope, comment: str) -> None:
    """Create a publication of ours.

    Raises:
        ConfigError: `postgres.publication_rights`: the role may not.
        RetryableError: The connection broke, or a lock was not to be had in time.
    """
    statement = _create(name, scope)
    _execute(connection, name, statement, _comment(name, comment))


def ensure_scope(connection: Connection, current: Publication, scope: Scope, comment: str) -> None:
    """Bring a publication of ours to this scope and comment. Raises as `create`.

    `FOR ALL TABLES` cannot be altered into a list or back; then the publication is replaced in one
    transaction, so that the log always finds one of its name.
    """
    name = sql.Identifier(current.name)
    statements: list[sql.Composed] = []
    if current.scope.everything != scope.everything:
        statements += [
            sql.SQL("DROP PUBLICATION {}").format(name),
            _create(current.name, scope),
            _comment(current.name, comment),
        ]
    else:
        if current.scope != scope:
            statements.append(sql.SQL("ALTER PUBLICATION {} SET {}").format(name, scope.clause()))
        if not current.via_root or current.operations != set(_OPERATIONS):
            statements.append(sql.SQL("ALTER PUBLICATION {} SET ({})").format(name, _parameters()))
        if current.comment != comment:
            statements.append(_comment(current.name, comment))
    if statements:
        _execute(connection, current.name, *statements)


def add(connection: Connection, name: str, scope: Scope) -> None:
    """Add tables and schemas to a publication of ours. Raises as `create`."""
    _execute(
        connection,
        name,
        sql.SQL("ALTER PUBLICATION {} ADD {}").format(sql.Identifier(name), scope.clause()),
    )


def check_foreign(
    publication: Publication,
    tables: Sequence[Table],
    selected: Sequence[Table],
) -> None:
    """Check that a publication that is not ours carries the selected tables and every operation.

    Raises:
        ConfigError: `postgres.publication_operations`, `postgres.publication_partitions` or
            `postgres.publication_tables`.
    """
    where = f"publication {publication.name}"
    quoted = sql.Identifier(publication.name).as_string()
    missing_operations = [op for op in _OPERATIONS if op not in publication.operations]
    if missing_operations:
        raise ConfigError(
            "postgres.publication_operations",
            f"it does not publish {', '.join(missing_operations)}",
            where=where,
            cure=f"ALTER PUBLICATION {quoted} SET (publish = '{', '.join(_OPERATIONS)}')",
        )
    partitioned = {table.oid for table in selected if table.partitioned}
    leaves = [table for table in tables if partitioned & set(table.ancestors)]
    if not publication.via_root and any(
        (leaf.schema, leaf.name) in publication.published for leaf in leaves
    ):
        raise ConfigError(
            "postgres.publication_partitions",
            "it publishes partitions one by one, not under the name of their table",
            where=where,
            cure=f"ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)",
        )
    missing = [
        table for table in selected if (table.schema, table.name) not in publication.published
    ]
    if missing:
        names = ", ".join(table.identifier.as_string() for table in missing)
        raise ConfigError(
            "postgres.publication_tables",
            f"it lacks {', '.join(map(str, missing))}",
            where=where,
            cure=f"ALTER PUBLICATION {quoted} ADD TABLE {names}, or narrow `tables`",
        )


def drop(connection: Connection, name: str) -> None:
    """Drop a publication if it exists. Raises as `create`."""
    _execute(
        connection, name, sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name))
    )


def _create(name: str, scope: Scope) -> sql.Composed:
    return sql.SQL("CREATE PUBLICATION {} FOR {} WITH ({})").format(
        sql.Identifier(name), scope.clause(), _parameters()
    )


def _parameters() -> sql.Composed:
    return sql.SQL("publish = {}, publish_via_partition_root = true").format(
        sql.Literal(", ".join(_OPERATIONS))
    )


def _comment(name: str, comment: str) -> sql.Composed:
    return sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(
        sql.Identifier(name), sql.Literal(comment)
    )


def _execute(connection: Connection, name: str, *statements: sql.Composed) -> None:
    """Run statements in one transaction."""
    try:
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)
    except errors.InsufficientPrivilege as error:
        script = "; ".join(statement.as_string(connection) for statement in statements)
        raise ConfigError(
            "postgres.publication_rights",
            f"the role may not create or alter it: {one_line(str(error))}",
            where=f"publication {name}",
            cure=f"let an owner of the tables run `{script}`, and set `create: false`, or grant"
            " the role CREATE on the database and the ownership of the tables",
        ) from None
    except (errors.DuplicateObject, errors.UndefinedTable, errors.UndefinedObject) as error:
        raise RetryableError(
            "postgres.publication_changed",
            f"tables or publication were changed meanwhile: {one_line(str(error))}",
            where=f"publication {name}",
        ) from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        # Lock timeouts and deadlocks are operational errors too.
        raise RetryableError("postgres.connection_lost", one_line(str(error))) from None
