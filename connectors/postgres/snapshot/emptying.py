"""Has targets emptied before their tables are read once more, behind a gap in the log.

A row that was deleted in the gap is nowhere: neither in the log nor in the table. So the targets
lose every row first, by a truncate of each table, and then get those that there are. The truncates
come before any change of the log and before any row is read: what follows them is all that counts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_CHANGES, Change
from connectors.contracts.source import Checkpoint, Chunk
from connectors.postgres.pgoutput.envelope import SourceBlock
from connectors.postgres.pgoutput.lsn import stored_lsn
from connectors.postgres.pgoutput.table import describe as table_of
from connectors.postgres.pgoutput.types import TypeResolver
from connectors.postgres.replication.catalog import ServerCatalog
from connectors.postgres.snapshot.tables import describe, published
from connectors.row_image import assemble, snapshot_tail

if TYPE_CHECKING:
    from connectors.postgres.server import Connection
    from connectors.postgres.setup.settings import Settings


def emptied(
    connection: Connection, settings: Settings, start: Checkpoint, stored: Checkpoint
) -> list[Chunk]:
    """A truncate of every captured table, to be handed out first.

    Args:
        connection: To the server.
        settings: The source's.
        start: Where the source goes on.
        stored: What the stream holds, before the gap. All chunks but the last one resume there: who
            is killed in between begins again.

    Returns:
        The chunks; none if there is no table.

    Raises:
        ConfigError: `postgres.select_right`.
        RetryableError: The connection broke.
    """
    changes = _truncates(connection, settings, start)
    chunks: list[Chunk] = []
    for at in range(0, len(changes), CHUNK_CHANGES):
        part = changes[at : at + CHUNK_CHANGES]
        final = at + len(part) == len(changes)
        behind = Checkpoint(part[-1].position, start.state if final else stored.state)
        chunks.append(Chunk(settings.source, part, behind, stored.state))
    return chunks


def _truncates(connection: Connection, settings: Settings, start: Checkpoint) -> list[Change]:
    database, now_ms = connection.info.dbname, time.time_ns() // 1_000_000
    # The connection stays the caller's: the catalog is not closed.
    catalog = ServerCatalog(settings.dsn, settings.source, connection)
    resolver = TypeResolver(catalog)
    # As `ChunkBuffer.place` has it: where the rows of the snapshot follow.
    place = stored_lsn(start) - 1
    tables = {
        table.oid: table for table in published(connection, settings.publication, settings.wants)
    }
    changes: list[Change] = []
    for table in tables.values():
        described = describe(connection, settings.publication, table)
        if described is None:
            continue
        schema = table_of(described.relation, settings.source, resolver, catalog).schema
        middle = SourceBlock(settings.source, database, schema.schema, schema.name)
        envelope = assemble(
            "null", "null", middle.middle(now_ms, None), place, snapshot_tail(now_ms, "t"), ""
        )
        position = f"{place:016X}-{len(changes) + 1:08X}"
        # The envelope has one brace too many.
        changes.append(Change("t", schema, position, None, "", True, envelope[:-1]))
    return changes
