"""Reads rows by their keys, as they are now, in the very form that the log has."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import psycopg
import structlog

from connectors.errors import RetryableError
from connectors.postgres.pgoutput.types import TypeResolver
from connectors.postgres.replication.catalog import ServerCatalog
from connectors.postgres.reselect.filling import Row, key_texts, row_of
from connectors.postgres.server import one_line, rows
from connectors.postgres.snapshot import copy_text, queries
from connectors.postgres.snapshot.reading_connection import connect_to_read, refusal
from connectors.postgres.snapshot.rendering import TableRenderer
from connectors.postgres.snapshot.tables import Published, describe
from connectors.postgres.snapshot.visibility import parse_visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.contracts.changes import Change, TableSchema
    from connectors.postgres.server import Connection
    from connectors.postgres.setup.settings import Settings
    from connectors.postgres.snapshot.tables import Described

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# What changes with every change of the table, its columns, its keys and what is published of it:
# each row of the catalog is written anew, by another transaction.
_TABLE = """
SELECT c.oid::bigint, c.relkind = 'p', concat_ws(' ', c.xmin,
  (SELECT string_agg(concat_ws('.', a.attnum, a.xmin), ',' ORDER BY a.attnum)
   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
  (SELECT string_agg(concat_ws('.', i.indexrelid, i.xmin), ',' ORDER BY i.indexrelid)
   FROM pg_index i WHERE i.indrelid = c.oid),
  (SELECT concat_ws('.', p.oid, p.xmin,
     (SELECT r.xmin FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))
   FROM pg_publication p WHERE p.pubname = %s))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
# The table or the column is no more, or its type is another one: there is nothing to read.
_ALTERED = ("42P01", "42703", "42883", "22")
# A standby has replayed, and so shows, whatever it has sent.
_SNAPSHOT = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_snapshot()::text END"


class RowLookup:
    """Reads over a connection of its own, which is opened when it is needed.

    Args:
        settings: The source's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._search_path = ""
        self._tables: dict[tuple[str, str], _Known] = {}
        self._warned: set[str] = set()

    def find(self, table: TableSchema, changes: Sequence[Change]) -> Mapping[str, Row] | None:
        """The rows that these changes of one table are about, with the columns that they lack.

        Args:
            table: The shape that the changes were written under. Columns that the table has no
                longer, or in another type, are not found.
            changes: They have keys.

        Returns:
            The rows by `Change.key`; one that is no more is missing. None: one of the changes is
            not visible yet, since its transaction is in the log before it has ended. A row would be
            older than the change then.

        Raises:
            ConfigError: `postgres.select_right`.
            RetryableError: The server cannot be reached.
        """
        connection = self._connect()
        try:
            with connection.transaction():
                ((visible,),) = rows(connection, _SNAPSHOT)
                if visible is not None:
                    seen = parse_visible(str(visible))
                    if not all(seen.sees(change.transaction) for change in changes):
                        return None
                return self._rows(connection, table, changes)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise RetryableError("postgres.connection_lost", one_line(str(error))) from None
        except psycopg.Error as error:
            state, label = error.sqlstate or "", f"{table.schema}.{table.name}"
            if not state.startswith(_ALTERED):
                raise refusal(state, one_line(str(error)), label, "toast: mark") from None
            self._warn(label, one_line(str(error)))
            return {}

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._tables.clear()
            self._connection, self._search_path = connect_to_read(self._settings)
            rows(self._connection, "SELECT set_config('statement_timeout', '30s', false)")
            # What the catalog says is what the rows are.
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
        return self._connection

    def _rows(
        self, connection: Connection, table: TableSchema, changes: Sequence[Change]
    ) -> dict[str, Row]:
        known = self._known(connection, table)
        if known is None:
            return {}
        described = known.described
        keys = _keys(described, changes)
        lacking = {name for change in changes for name in change.unavailable}
        renderer = known.renderer(frozenset({*table.key, *lacking}))
        types = {column.name: column.type for column in table.columns}
        same = {each.name for each in renderer.schema.columns if types[each.name] == each.type}
        if not keys or not same & lacking or not same.issuperset(table.key):
            return {}
        columns = [column.name for column in renderer.relation.columns]
        statement = queries.by_keys(described, columns, types, keys, partitioned=known.partitioned)
        # What a value looks like may depend on it, as that of a regclass does.
        rows(connection, "SELECT set_config('search_path', %s, true)", self._search_path)
        with connection.cursor().copy(statement) as copy:
            lines = copy_text.lines(b"".join(bytes(piece) for piece in copy))
        read = _rendered(renderer, lines)
        return {
            key: row._replace(
                values={name: each for name, each in row.values.items() if name in same}
            )
            for key, row in read.items()
        }

    def _known(self, connection: Connection, table: TableSchema) -> _Known | None:
        """The table as it is now; None: it is no more, or has another key."""
        place = (table.schema, table.name)
        found = rows(connection, _TABLE, self._settings.publication, *place)
        if not found:
            self._tables.pop(place, None)
            return None
        ((oid, partitioned, version),) = found
        known = self._tables.get(place)
        if known is None or known.version != version:
            published = Published(
                oid=cast("int", oid),
                schema=table.schema,
                name=table.name,
                leaf=0,
                estimated=0,
                partitioned=bool(partitioned),
            )
            described = describe(connection, self._settings.publication, published)
            if described is None:
                return None
            # The connection stays ours: the catalog is not closed.
            catalog = ServerCatalog(self._settings.dsn, self._settings.source, connection)
            place_ = (self._settings.source, connection.info.dbname)
            known = _Known(str(version), described, bool(partitioned), catalog, place_)
            self._tables[place] = known
        return known if {each.name for each in known.described.key} == set(table.key) else None

    def _warn(self, table: str, reason: str) -> None:
        if table not in self._warned:
            self._warned.add(table)
            _log.warning(
                "rows cannot be read again, their unchanged values stay unavailable",
                source=self._settings.source,
                table=table,
                reason=reason,
            )


class _Known:
    """A table as the catalog has described it.

    Args:
        version: Another one: look again.
        described: What it has described.
        partitioned: Reading it reads its partitions.
        catalog: Knows types and keys.
        place: The source's name and the database's.
    """

    def __init__(
        self,
        version: str,
        described: Described,
        partitioned: bool,
        catalog: ServerCatalog,
        place: tuple[str, str],
    ) -> None:
        self.version, self.described, self.partitioned = version, described, partitioned
        self._catalog, self._place = catalog, place
        self._renderers: dict[frozenset[str], TableRenderer] = {}

    def renderer(self, wanted: frozenset[str]) -> TableRenderer:
        """Renders the wanted columns, as far as there are such."""
        known = self._renderers.get(wanted)
        if known is None:
            relation = self.described.relation
            columns = tuple(each for each in relation.columns if each.name in wanted)
            known = self._renderers[wanted] = TableRenderer(
                replace(relation, columns=columns),
                *self._place,
                TypeResolver(self._catalog),
                self._catalog,
            )
        return known


def _keys(described: Described, changes: Sequence[Change]) -> list[tuple[str, ...]]:
    """Each key once, in the key's own order."""
    keys: dict[tuple[str, ...], None] = {}
    for change in changes:
        texts = key_texts(change)
        if texts is not None:
            keys[tuple(texts[column.name] for column in described.key)] = None
    return list(keys)


def _rendered(renderer: TableRenderer, lines: Sequence[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    at = 0
    while at < len(lines):
        changes, at = renderer.render(
            lines,
            at,
            place=(f"{0:016X}-", 0),
            read_ms=time.time_ns() // 1_000_000,
            first=False,
            last=False,
            leading=0,
            outdated=None,
        )
        found.update({change.key: row_of(change) for change in changes if change.key is not None})
    return found
