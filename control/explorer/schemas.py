"""The versions of tables' shapes, as far as their changes are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import GapError
from connectors.jetstream import api
from connectors.jetstream.examine import settled
from connectors.jetstream.frames import read_checkpoint
from connectors.jetstream.schemas import SchemaStore
from connectors.jetstream.shape_versions import STREAM, key_at, key_of, pattern_of, read
from connectors.jetstream.stream import stream_name
from control.explorer.streams import subjects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.shape_versions import TableVersions


def versions(connection: Connection, sources: Iterable[str], table: str) -> list[TableVersions]:
    """The tables that have versions which count, by source, schema and name.

    Args:
        connection: To NATS.
        sources: Whose.
        table: `table` or `schema.table`; empty: all.

    Raises:
        RetryableError: NATS does not answer.
        GapError: What is stored is damaged.
    """
    if api.stream_info(connection, STREAM) is None:
        return []
    found = []
    for source in sources:
        upto = _stored_upto(connection, source)
        for subject in subjects(connection, STREAM, pattern_of(source)):
            known, _ = read(connection, key_at(subject))
            if known is None or table not in ("", known.name, f"{known.schema}.{known.name}"):
                continue
            counted = known.upto(upto)
            if counted.versions:
                found.append(counted)
    return sorted(found, key=lambda each: (each.source, each.schema, each.name))


def version_at(connection: Connection, source: str, digest: str, position: str) -> int:
    """The number of the version that a stored change was written under; 0: it has none.

    Args:
        connection: To NATS.
        source: Whose change it is.
        digest: The hash of its shape.
        position: Of the change.

    Raises:
        RetryableError: NATS does not answer.
    """
    try:
        shape = SchemaStore(connection).get(digest)
        known, _ = read(connection, key_of(source, shape.schema, shape.name))
    except GapError:
        return 0  # a bucket that was lost is no reason to show nothing of the change
    counted = known.upto(position).versions if known else ()
    return max((each.number for each in counted if each.hash == digest), default=0)


def _stored_upto(connection: Connection, source: str) -> str:
    """The position up to which a source's stream holds everything."""
    stream = stream_name(source)
    _, message = settled(connection, stream)
    last = read_checkpoint(message.hdrs, stream) if message else None
    return last.position if last else ""
