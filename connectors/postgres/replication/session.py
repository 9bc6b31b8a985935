"""One stretch of streaming: a replication connection, its decoder and the catalog it asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.errors import RetryableError
from connectors.postgres.pgoutput.decoder import Decoder
from connectors.postgres.pgoutput.lsn import stored_lsn
from connectors.postgres.replication.catalog import ServerCatalog
from connectors.postgres.replication.connection import ReplicationConnection
from connectors.postgres.server import Connection, connect
from connectors.postgres.setup import gaps, preflight, slot

if TYPE_CHECKING:
    from connectors.contracts.source import Checkpoint
    from connectors.postgres.setup.settings import Settings


@dataclass(frozen=True, slots=True)
class Session:
    """What a reader reads from.

    Attributes:
        stream: The replication connection, streaming.
        decoder: Set up to hand out what follows the checkpoint that the session started from.
        catalog: Used by the decoder.
    """

    stream: ReplicationConnection
    decoder: Decoder
    catalog: ServerCatalog

    def close(self) -> None:
        """Let go of both connections. Never raises."""
        self.stream.close()
        self.catalog.close()


def start(
    settings: Settings, connection: Connection, checkpoint: Checkpoint, confirmed: int
) -> Session:
    """Start streaming behind a checkpoint.

    Args:
        settings: The source's.
        connection: An ordinary connection; the session takes it over once it has started.
        checkpoint: Behind which to start.
        confirmed: LSN up to which everything is stored for good.

    Raises:
        WaxtapError: As `ReplicationConnection` and its `start`.
    """
    stream = ReplicationConnection(settings.dsn, settings.source, settings.slot)
    try:
        stream.start(
            [settings.publication],
            start=stored_lsn(checkpoint),
            confirmed=confirmed,
            messages=settings.messages,
        )
        catalog = ServerCatalog(settings.dsn, settings.source, connection)
        decoder = Decoder(
            settings.source,
            connection.info.dbname,
            catalog,
            resume=checkpoint,
            system=checkpoint.state["system"],
        )
    except BaseException:
        stream.close()
        raise
    return Session(stream, decoder, catalog)


def restart(settings: Settings, checkpoint: Checkpoint, confirmed: int, previous: int) -> Session:
    """Start again after the connection was lost.

    Ends no session but our own previous one, which a server may keep for a while after the network
    was cut; whoever else holds the slot may be a newer owner of the source.

    Args:
        settings: The source's.
        checkpoint: The last that was handed out.
        confirmed: LSN up to which everything is stored for good.
        previous: The pid of the server process of the lost session.

    Raises:
        RetryableError: The server cannot be reached, or the slot is held.
        FatalError: It can never succeed.
    """
    connection = connect(settings.dsn, settings.source)
    try:
        gaps.check_system(checkpoint.state["system"], preflight.system_identifier(connection))
        found = slot.find(connection, settings.slot)
        gaps.check_position(connection, found, settings, stored_lsn(checkpoint))
        _check_held(connection, settings, found, previous)
        return start(settings, connection, checkpoint, confirmed)
    except BaseException:
        connection.close()
        raise


def _check_held(
    connection: Connection, settings: Settings, found: slot.Slot | None, previous: int
) -> None:
    if found is None or not found.holder:
        return
    holder = slot.find_holder(connection, found.holder, settings.application)
    if holder is not None and holder.ours and holder.pid == previous:
        slot.terminate(connection, previous)
    raise RetryableError(
        "postgres.slot_held", f"pid {found.holder} reads from it", where=f"slot {settings.slot}"
    )
