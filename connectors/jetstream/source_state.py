"""What sources remember beyond their checkpoints: one object bucket each, `CDC_STATE_<source>`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from connectors.jetstream.connection import connect
from connectors.jetstream.objects import (
    ensure_objects,
    fetch_object,
    list_objects,
    put_object,
    remove_object,
)

if TYPE_CHECKING:
    from typing import BinaryIO

    from connectors.jetstream.spec import NatsSpec

_FOR_EVER = timedelta()


def state_bucket(source: str) -> str:
    """The name of a source's bucket."""
    return f"CDC_STATE_{source}"


class ObjectState:
    """Implements `contracts.StateStore` beside the source's stream; made when first written to.

    Args:
        nats: Where the stream is.
        source: The source's name.
    """

    def __init__(self, nats: NatsSpec, source: str) -> None:
        self._nats, self._bucket = nats, state_bucket(source)
        self._ready = False

    def put(self, name: str, data: BinaryIO) -> None:
        """Store what `data` holds from where it stands to its end, in place of an older `name`."""
        with connect(self._nats) as connection:
            if not self._ready:
                ensure_objects(connection, self._nats.stream, self._bucket, _FOR_EVER)
                self._ready = True
            put_object(connection, self._bucket, name, data)

    def get(self, name: str, into: BinaryIO) -> None:
        """Write what is stored under `name` to `into`."""
        with connect(self._nats) as connection:
            fetch_object(connection, f"{self._bucket}/{name}", into)

    def names(self) -> list[str]:
        """What is stored, in no order."""
        with connect(self._nats) as connection:
            return list_objects(connection, self._bucket)

    def remove(self, name: str) -> None:
        """Forget a name; one that is not there is fine."""
        with connect(self._nats) as connection:
            remove_object(connection, f"{self._bucket}/{name}")
