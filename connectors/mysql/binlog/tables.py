"""The tables that a log has described, ready to decode their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.mysql.binlog.compiled import CompiledReader
from connectors.mysql.binlog.declared import declared_schema
from connectors.mysql.binlog.envelope import SourceBlock
from connectors.mysql.binlog.events import HEADER_SIZE, malformed
from connectors.mysql.binlog.rows import ExactReader
from connectors.mysql.binlog.table import describe
from connectors.mysql.binlog.tablemap import BODY, parse_table_map, table_name
from connectors.mysql.binlog.types import needs_catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.changes import TableSchema
    from connectors.mysql.binlog.table import Table
    from connectors.mysql.binlog.types import Catalog

# A transaction that a server marks as at its end without any rows (MySQL bug 67594) names this
# table.
_NO_TABLE = b"\xff\xff\xff\0\0\0"
_MOST_SHAPES = 5000
# MariaDB keeps a sequence in a table of one row, which its log describes like any other.
SEQUENCE = (
    "next_not_cached_value", "minimum_value", "maximum_value", "start_value", "increment",
    "cache_size", "cycle_option", "cycle_count",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownTable:
    """A table, and what decodes its rows.

    Attributes:
        table: Its shape.
        exact: Reads any of its rows.
        compiled: Reads whole row images; None where only the exact reader is wanted.
        block: Renders the envelope's `source`.
    """

    table: Table
    exact: ExactReader
    compiled: CompiledReader | None
    block: SourceBlock


class Tables:
    """Keeps the shapes that TABLE_MAP events tell; the same event body is the same shape.

    Args:
        source: The source's name in the configuration.
        catalog: What the log does not tell.
        wanted: Which tables (database, name) are captured.
        mariadb: Which kind of server it is.
        zero_dates: As in `values.render`.
        compiled: Whether to generate functions.
    """

    def __init__(
        self,
        source: str,
        catalog: Catalog,
        wanted: Callable[[str, str], bool],
        *,
        mariadb: bool,
        zero_dates: bool,
        compiled: bool,
    ) -> None:
        self._source = source
        self._catalog = catalog
        self._wanted = wanted
        self._mariadb = mariadb
        self._zero_dates = zero_dates
        self._compile = compiled
        self._connector = "mariadb" if mariadb else "mysql"
        self._shapes: dict[bytes, KnownTable | None] = {}
        self._mapped: dict[bytes, KnownTable | None] = {_NO_TABLE: None}
        self._latest: dict[tuple[str, str], TableSchema] = {}

    def learn(self, event: bytes, end: int) -> None:
        """Take note of a TABLE_MAP event.

        Raises:
            ConfigError: `mysql.row_metadata`.
            FatalError: `mysql.malformed_event`, `mysql.unknown_type` or
                `mysql.unknown_collation`.
        """
        body = event[BODY:end]
        try:
            known = self._shapes[body]
        except KeyError:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            known = self._shapes[body] = self._describe(event, end)
        self._mapped[event[HEADER_SIZE : HEADER_SIZE + 6]] = known

    def of_rows(self, event: bytes) -> KnownTable | None:
        """The table that a rows event is about; None: it is not captured.

        Raises:
            FatalError: `mysql.malformed_event`: the log has not described it.
        """
        try:
            return self._mapped[event[HEADER_SIZE : HEADER_SIZE + 6]]
        except KeyError:
            raise malformed(event, "the log has not described the table of its rows") from None

    def forget_maps(self) -> None:
        """The numbers of tables begin anew."""
        self._mapped = {_NO_TABLE: None}

    def shapes_may_change(self) -> None:
        """Some DDL was run: what the catalog told may no longer hold."""
        self._shapes = {
            body: known
            for body, known in self._shapes.items()
            if known is None or not needs_catalog(known.table.types)
        }

    def captured(self, schema: str, name: str) -> bool:
        """Whether a table is captured."""
        return self._wanted(schema, name)

    def truncated(self, schema: str, name: str) -> tuple[TableSchema, SourceBlock]:
        """What to say of a table that was emptied, which the log describes with its rows only.

        Before its first rows it has the shape that the server declares now; where we may not see
        that, nothing but its name is known.
        """
        table = self._latest.get((schema, name))
        if table is None:
            columns = self._catalog.declared(schema, name)
            table = declared_schema(self._source, schema, name, columns, self._connector)
            self._latest[schema, name] = table
        return table, self.block(schema, name)

    def block(self, schema: str, name: str) -> SourceBlock:
        """Renders the envelope's `source` for a table."""
        return SourceBlock(self._connector, self._source, schema, name)

    def _describe(self, event: bytes, end: int) -> KnownTable | None:
        schema, name = table_name(event)
        if not self._wanted(schema, name):
            return None
        map_ = parse_table_map(event, end, mariadb=self._mariadb)
        if self._mariadb and tuple(column.name for column in map_.columns) == SEQUENCE:
            return None
        table = describe(map_, self._source, self._catalog, mariadb=self._mariadb)
        self._latest[schema, name] = table.schema
        compiled = CompiledReader(table, zero_dates=self._zero_dates) if self._compile else None
        return KnownTable(
            table,
            ExactReader(table, zero_dates=self._zero_dates),
            compiled,
            self.block(schema, name),
        )
