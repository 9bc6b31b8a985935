"""The shapes of tables, each version stored once under its hash in the bucket `CDC_SCHEMAS`.

The bucket is a NATS key-value store (ADR-8): a stream with one message for each key, so that
`nats kv get CDC_SCHEMAS <hash>` shows a shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.changes import TableSchema
from connectors.errors import GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.key_values import ensure_key_values

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection

BUCKET = "CDC_SCHEMAS"
_STREAM = f"KV_{BUCKET}"
_SUBJECT = f"$KV.{BUCKET}."


class SchemaStore:
    """Reads and writes shapes; what was seen once is remembered.

    Args:
        connection: Where the bucket is.
        replicas: Of a bucket that has to be made.
    """

    def __init__(self, connection: Connection, replicas: int = 1) -> None:
        self._connection, self._replicas = connection, replicas
        self._known: dict[str, TableSchema] = {}
        self._ready = False

    def put(self, schema: TableSchema) -> None:
        """Return once the bucket holds this shape.

        Raises:
            RetryableError: NATS does not answer, or did not store it.
            ConfigError: We are not allowed to.
        """
        if schema.hash in self._known:
            return
        if not self._ready:
            ensure_key_values(self._connection, BUCKET, self._replicas)
            self._ready = True
        subject = f"{_SUBJECT}{schema.hash}"
        if api.last_message(self._connection, _STREAM, subject) is None:
            ack = api.decode_ack(self._connection.request(subject, schema.encoded).payload)
            if ack.error is not None:
                raise RetryableError(
                    "jetstream.not_stored",
                    f"{ack.error.description} ({ack.error.err_code})",
                    where=BUCKET,
                )
        self._known[schema.hash] = schema

    def get(self, digest: str) -> TableSchema:
        """The shape with this hash.

        Raises:
            GapError: The bucket does not hold it, or holds something else under it.
            RetryableError: NATS does not answer.
        """
        schema = self._known.get(digest)
        if schema is not None:
            return schema
        try:
            stored = api.last_message(self._connection, _STREAM, f"{_SUBJECT}{digest}")
        except api.ApiError as error:
            raise _gone(digest, str(error)) from error
        if stored is None:
            raise _gone(digest, "there is no such key")
        try:
            schema = TableSchema.decode(stored.data)
        except msgspec.MsgspecError as error:
            raise _gone(digest, str(error)) from error
        if schema.hash != digest:
            raise _gone(digest, "another shape is stored under this hash")
        self._known[digest] = schema
        return schema


def _gone(digest: str, reason: str) -> GapError:
    return GapError(
        "jetstream.schema_gone",
        f"the shape that stored changes were written under is not readable: {reason}",
        where=f"{BUCKET}.{digest}",
        cure="restore the bucket from a backup; it is never cleaned up by Waxtap",
    )
