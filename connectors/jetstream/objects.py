"""NATS' object store (ADR-20), for what is larger than a message may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import nats.errors
from nats.js.api import ObjectMeta, ObjectMetaOptions
from nats.js.errors import APIError, NotFoundError, ObjectDeletedError, ObjectNotFoundError

from connectors.errors import GapError, RetryableError
from connectors.jetstream.layout import ensure_bucket, nanoseconds

if TYPE_CHECKING:
    from datetime import timedelta
    from io import BufferedIOBase
    from typing import BinaryIO

    from connectors.jetstream.client import StreamClient
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import StreamSpec

_CHUNK = 128 * 1024
# A publisher may hold a message back for a while after its object was stored.
_LONGER_NS = 24 * 3600 * 1_000_000_000
_TIMEOUT = 120.0


def ensure_objects(
    connection: Connection, spec: StreamSpec, bucket: str, max_age: timedelta
) -> None:
    """Make a bucket whose objects live a little longer than `max_age` (0: for ever).

    Raises:
        ConfigError: The server refuses it.
        RetryableError: NATS does not answer.
    """
    ensure_bucket(
        connection,
        f"OBJ_{bucket}",
        [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        {
            "max_age": nanoseconds(max_age) + _LONGER_NS if max_age else 0,
            "num_replicas": spec.replicas,
            "storage": spec.storage,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        },
    )


def put_object(connection: Connection, bucket: str, name: str, data: bytes | BinaryIO) -> str:
    """Store an object, given whole or as a file; returns the reference `bucket/name`.

    Raises:
        RetryableError: It could not be stored now.
    """
    chunk = min(_CHUNK, connection.max_payload // 2)

    async def put(client: StreamClient) -> None:
        store = await client.jetstream(timeout=10).object_store(bucket)
        meta = ObjectMeta(name=name, options=ObjectMetaOptions(max_chunk_size=chunk))
        await store.put(name, cast("bytes | BufferedIOBase", data), meta=meta)

    try:
        connection.run(put, _TIMEOUT)
    except (nats.errors.Error, APIError) as error:
        raise RetryableError(
            "jetstream.object_not_stored", str(error), where=f"{bucket}/{name}"
        ) from error
    return f"{bucket}/{name}"


def fetch_object(connection: Connection, reference: str, into: BinaryIO | None = None) -> bytes:
    """Read an object; with `into` it is written there, and what is returned is empty.

    Raises:
        GapError: It is gone.
        RetryableError: NATS does not answer.
    """
    bucket, _, name = reference.partition("/")

    async def get(client: StreamClient) -> bytes | None:
        store = await client.jetstream(timeout=10).object_store(bucket)
        return (await store.get(name, cast("BufferedIOBase | None", into))).data

    try:
        data = connection.run(get, _TIMEOUT)
    except (ObjectNotFoundError, ObjectDeletedError, NotFoundError) as error:
        raise GapError(
            "jetstream.object_gone",
            "it is no longer in the object store",
            where=reference,
            cure="restore the bucket from a backup",
        ) from error
    except (nats.errors.Error, APIError) as error:
        raise RetryableError("jetstream.object", str(error), where=reference) from error
    return data or b""


def remove_object(connection: Connection, reference: str) -> None:
    """Delete an object; one that is gone already is fine.

    Raises:
        RetryableError: NATS does not answer.
    """
    bucket, _, name = reference.partition("/")

    async def delete(client: StreamClient) -> None:
        store = await client.jetstream(timeout=10).object_store(bucket)
        await store.delete(name)

    try:
        connection.run(delete, _TIMEOUT)
    except (ObjectNotFoundError, ObjectDeletedError, NotFoundError):
        return
    except (nats.errors.Error, APIError) as error:
        raise RetryableError("jetstream.object", str(error), where=reference) from error


def list_objects(connection: Connection, bucket: str) -> list[str]:
    """The names of a bucket's objects, in no order; none where there is no such bucket.

    Raises:
        RetryableError: NATS does not answer.
    """

    async def names(client: StreamClient) -> list[str]:
        store = await client.jetstream(timeout=10).object_store(bucket)
        return [info.name for info in await store.list(ignore_deletes=True)]

    try:
        return connection.run(names, _TIMEOUT)
    except NotFoundError:
        return []
    except (nats.errors.Error, APIError) as error:
        raise RetryableError("jetstream.object", str(error), where=bucket) from error
