"""Looks at messages as they are read, and keeps of them what is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.errors import GapError
from connectors.jetstream.oversize import resolve
from connectors.jetstream.stored import parse_headers
from control.explorer.messages import shown, unpacked

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import Raw
    from control.explorer.messages import Message
    from control.explorer.states import Restriction
    from control.explorer.wanted import Look


@dataclass(frozen=True, slots=True)
class Looking:
    """Looks at messages as they come in (`lanes.Lookup`).

    Attributes:
        connection: To read from the object store.
        look: What headers and payloads must say.
        preview: How many bytes of a payload are shown.
        reads_objects: Whether rows in the object store are looked into.
        restriction: What a sink leaves; None: everything.
    """

    connection: Connection
    look: Look
    preview: int
    reads_objects: bool
    restriction: Restriction | None = None

    def __call__(self, stream: str, raw: Raw) -> Message | None:
        """What is shown of a message; None: it is not wanted."""
        if not self.look.of_header(raw):
            return None
        if self.restriction is not None and not self.restriction.takes(stream, raw):
            return None
        payload = unpacked(raw)
        if payload is None and self.reads_objects:
            try:
                payload = whole(self.connection, raw)
            except GapError:  # a large row that is gone has nothing to be found in
                return None
        if payload is not None and not self.look.of_payload(raw, payload):
            return None
        return shown(stream, raw, payload, self.preview)


def whole(connection: Connection, raw: Raw) -> bytes:
    """The payload of a message, wherever it lies. Raises GapError: it is gone."""
    headers = parse_headers(raw.header)
    if headers is None:
        return raw.payload
    return resolve(connection, headers.encoding, headers.object, raw.payload)
