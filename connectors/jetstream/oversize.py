"""Messages beyond the server's `max_payload`: compressed, or put into the object store.

A large payload is compressed (`Cdc-Encoding: zlib`). Where that is not enough the compressed data
goes into the bucket `CDC_LARGE_<source>` of NATS' object store (ADR-20), named by position and
content, and the message carries only `Cdc-Object: bucket/name`. Objects live a little longer than
the messages that refer to them.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING

from connectors.errors import GapError
from connectors.jetstream.frames import HEADER_ROOM, Body
from connectors.jetstream.objects import ensure_objects, fetch_object, put_object

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import StreamSpec


def bucket_name(source: str) -> str:
    """The bucket of a source's large rows."""
    return f"CDC_LARGE_{source}"


def is_oversize(change: Change, max_payload: int) -> bool:
    """Whether a change may not fit into one message."""
    size = len(change.envelope) + len(change.key or "") + HEADER_ROOM
    for names in (change.unavailable, change.json_nulls):
        size += sum(map(len, names)) * 6 + 4 * len(names)
    size += len(change.failed)
    return size > max_payload


def shrink(connection: Connection, spec: StreamSpec, source: str, change: Change) -> Body:
    """Make a body that fits, storing an object where needed.

    Raises:
        RetryableError: The object could not be stored now.
        ConfigError: The bucket cannot be made.
    """
    packed = zlib.compress(change.envelope, 1)
    if not is_oversize(change._replace(envelope=packed), connection.max_payload):
        return Body(packed, "Cdc-Encoding: zlib\r\n")
    bucket = bucket_name(source)
    ensure_objects(connection, spec, bucket, spec.max_age)
    # Pipelines may give one change several envelopes.
    name = f"{change.position}-{blake2b(change.envelope, digest_size=8).hexdigest()}"
    reference = put_object(connection, bucket, name, packed)
    return Body(b"", f"Cdc-Encoding: zlib\r\nCdc-Object: {reference}\r\n")


def resolve(connection: Connection, encoding: str, reference: str, payload: bytes) -> bytes:
    """The envelope of a message whose headers name an encoding or an object.

    Raises:
        GapError: The object is gone, or the data are damaged.
        RetryableError: NATS does not answer.
    """
    if reference:
        payload = fetch_object(connection, reference)
    if not encoding:
        return payload
    if encoding != "zlib":
        raise GapError(
            "jetstream.encoding",
            f"a message has the encoding {encoding!r}, this program knows zlib",
            cure="run the version that wrote it, or a later one",
        )
    try:
        return zlib.decompress(payload)
    except zlib.error as error:
        raise GapError("jetstream.damaged", f"a compressed message: {error}") from error
