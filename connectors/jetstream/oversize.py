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

import nats.errors
from nats.js.api import ObjectMeta, ObjectMetaOptions
from nats.js.errors import APIError, NotFoundError, ObjectDeletedError, ObjectNotFoundError

from connectors.errors import GapError, RetryableError
from connectors.jetstream.frames import HEADER_ROOM, Body
from connectors.jetstream.layout import ensure_bucket, nanoseconds

if TYPE_CHECKING:
    from connectors.contracts import Change
    from connectors.jetstream.client import StreamClient
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import StreamSpec

_CHUNK = 128 * 1024
# A publisher may hold a message back for a while after its object was stored.
_LONGER_NS = 24 * 3600 * 1_000_000_000
_TIMEOUT = 120.0


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
    ensure_bucket(
        connection,
        f"OBJ_{bucket}",
        [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        {
            "max_age": nanoseconds(spec.max_age) + _LONGER_NS if spec.max_age else 0,
            "num_replicas": spec.replicas,
            "storage": spec.storage,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        },
    )
    # Pipelines may give one change several envelopes.
    name = f"{change.position}-{blake2b(change.envelope, digest_size=8).hexdigest()}"
    chunk = min(_CHUNK, connection.max_payload // 2)

    async def put(client: StreamClient) -> None:
        store = await client.jetstream(timeout=10).object_store(bucket)
        meta = ObjectMeta(name=name, options=ObjectMetaOptions(max_chunk_size=chunk))
        await store.put(name, packed, meta=meta)

    try:
        connection.run(put, _TIMEOUT)
    except (nats.errors.Error, APIError) as error:
        raise RetryableError(
            "jetstream.object_not_stored", str(error), where=f"{bucket}/{name}"
        ) from error
    return Body(b"", f"Cdc-Encoding: zlib\r\nCdc-Object: {bucket}/{name}\r\n")


def resolve(connection: Connection, encoding: str, reference: str, payload: bytes) -> bytes:
    """The envelope of a message whose headers name an encoding or an object.

    Raises:
        GapError: The object is gone, or the data are damaged.
        RetryableError: NATS does not answer.
    """
    if reference:
        payload = _fetch(connection, reference)
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


def _fetch(connection: Connection, reference: str) -> bytes:
    bucket, _, name = reference.partition("/")

    async def get(client: StreamClient) -> bytes | None:
        store = await client.jetstream(timeout=10).object_store(bucket)
        return (await store.get(name)).data

    try:
        data = connection.run(get, _TIMEOUT)
    except (ObjectNotFoundError, ObjectDeletedError, NotFoundError) as error:
        raise GapError(
            "jetstream.object_gone",
            "a large row is no longer in the object store",
            where=reference,
            cure="restore the bucket from a backup",
        ) from error
    except (nats.errors.Error, APIError) as error:
        raise RetryableError("jetstream.object", str(error), where=reference) from error
    return data or b""
