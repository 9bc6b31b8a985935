"""What reads from NATS, over one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream.connection import Connection, connect
from connectors.jetstream.direct import DirectGets
from connectors.jetstream.headers_only import headers_of
from control.explorer.deliveries import Deliveries
from control.explorer.key_indexes import KeyIndexes
from control.explorer.letter_places import Letters
from control.explorer.progress import Places, Sinks
from control.explorer.source_offsets import Observer

if TYPE_CHECKING:
    from connectors.jetstream.spec import NatsSpec


class Open(NamedTuple):
    """What reads from NATS."""

    connection: Connection
    reads: DirectGets
    indexes: KeyIndexes
    places: Places
    deliveries: Deliveries
    letters: Letters
    observer: Observer

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self.places.close()
        self.indexes.close()
        self.reads.close()
        self.connection.release()


def connected(nats: NatsSpec, sinks: Sinks) -> Open:
    """Connect. Raises RetryableError: NATS cannot be reached."""
    connection = connect(nats)
    try:
        reads = DirectGets(connection)
    except BaseException:
        connection.release()
        raise
    places = Places(connection, sinks)
    return Open(
        connection,
        reads,
        KeyIndexes(lambda of, after: headers_of(connection, of.stream, of.subjects, after)),
        places,
        Deliveries(connection, reads, places),
        Letters(connection),
        Observer(nats, places.executor),
    )
