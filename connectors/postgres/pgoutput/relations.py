"""The tables that a replication stream has announced, ready to decode their changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.errors import FatalError
from connectors.postgres.pgoutput.compiled import CompiledReader
from connectors.postgres.pgoutput.envelope import SourceBlock
from connectors.postgres.pgoutput.rows import ExactReader
from connectors.postgres.pgoutput.table import describe
from connectors.postgres.pgoutput.types import TypeResolver

if TYPE_CHECKING:
    from connectors.postgres.pgoutput.compiled import Splice
    from connectors.postgres.pgoutput.messages import Relation, Type
    from connectors.postgres.pgoutput.rows import RowReader
    from connectors.postgres.pgoutput.table import Table
    from connectors.postgres.pgoutput.types import Catalog


@dataclass(frozen=True, slots=True)
class KnownRelation:
    """A table, and what decodes its changes.

    Attributes:
        table: Its present shape.
        columns: How many columns it has.
        reader: Reads any change of a row.
        splice: As `CompiledReader.splice`; None where only the exact reader is wanted.
        block: Renders the envelope's `source`.
    """

    table: Table
    columns: int
    reader: RowReader
    splice: Splice | None
    block: SourceBlock


class Relations:
    """Keeps the latest Relation message of each table.

    Args:
        source: The source's name in the configuration.
        database: The database's name.
        catalog: What the log does not tell.
        compiled: Whether to generate functions.
    """

    def __init__(self, source: str, database: str, catalog: Catalog, *, compiled: bool) -> None:
        self._source = source
        self._database = database
        self._catalog = catalog
        self._compiled = compiled
        self._resolver = TypeResolver(catalog)
        self._known: dict[int, KnownRelation] = {}

    def __getitem__(self, oid: int) -> KnownRelation:
        known = self._known.get(oid)
        if known is None:
            raise FatalError(
                "postgres.unknown_relation",
                f"a change of a table (oid {oid}) that the stream has not described",
                cure="restart the flow; nothing was lost",
            )
        return known

    def announce(self, type_: Type) -> None:
        """Take note of a type's name."""
        self._resolver.announce(type_.oid, type_.schema, type_.name)

    def learn(self, relation: Relation) -> None:
        """Take note of a table's shape; one that is already known is kept as it is."""
        known = self._known.get(relation.oid)
        # The server repeats itself. Under identity FULL the key is not in the message.
        if known is not None and known.table.relation == relation and relation.identity != "f":
            return
        table = describe(relation, self._source, self._resolver, self._catalog)
        if known is not None and known.table == table:
            return
        reader = CompiledReader(table) if self._compiled else ExactReader(table)
        self._known[relation.oid] = KnownRelation(
            table=table,
            columns=len(table.types),
            reader=reader,
            splice=reader.splice if isinstance(reader, CompiledReader) else None,
            block=SourceBlock(self._source, self._database, relation.schema, relation.name),
        )
