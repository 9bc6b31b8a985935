"""Buckets of keys and values (ADR-8): a stream `KV_<bucket>`, a message on `$KV.<bucket>.<key>`.

A revision is a message's sequence. A key that was deleted has an empty message with a mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import RetryableError
from connectors.jetstream import api
from connectors.jetstream.layout import ensure_bucket, nanoseconds
from connectors.jetstream.refusals import Kind, classify

if TYPE_CHECKING:
    from datetime import timedelta

    from connectors.jetstream.connection import Connection

_DELETED = "KV-Operation: DEL\r\n"


def ensure_key_values(
    connection: Connection,
    bucket: str,
    replicas: int,
    *,
    history: int = 1,
    max_age: timedelta | None = None,
) -> None:
    """Make a bucket unless there is one.

    Args:
        connection: Where to.
        bucket: Its name.
        replicas: Of a bucket that has to be made.
        history: How many values are kept of a key; 64 at most.
        max_age: How long a value is kept; None: for ever.

    Raises:
        ConfigError: The server refuses it.
        RetryableError: NATS does not answer.
    """
    settings: dict[str, object] = {
        "max_msgs_per_subject": history,
        "discard": "new",
        "num_replicas": replicas,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
    }
    if max_age is not None:
        settings["max_age"] = nanoseconds(max_age)
    ensure_bucket(connection, f"KV_{bucket}", [f"$KV.{bucket}.>"], settings)


def replacing(revision: int, data: bytes) -> str:
    """The headers of a value that is stored only if it replaces this revision; 0: nothing.

    An empty value deletes the key.
    """
    deletes = "" if data else _DELETED
    return f"Nats-Expected-Last-Subject-Sequence: {revision}\r\n{deletes}"


def stored(reply: bytes, where: str) -> int | None:
    """The revision of a value that was sent with `replacing`; None: there is a later one.

    Args:
        reply: What the server has answered.
        where: The bucket, with or without the key, for errors.

    Raises:
        RetryableError: It was not stored.
    """
    ack = api.decode_ack(reply)
    if ack.error is None:
        return ack.seq
    if classify(ack.error) is Kind.OVERTAKEN:
        return None
    raise RetryableError(
        "jetstream.not_stored", f"{ack.error.description} ({ack.error.err_code})", where=where
    )


def replace(
    connection: Connection, bucket: str, key: str, data: bytes, revision: int
) -> int | None:
    """Store a value in place of a revision, 0: of none; an empty value deletes the key.

    Returns:
        The new revision; None: there is a later one than `revision`, and nothing was stored.

    Raises:
        RetryableError: NATS does not answer: it may have been stored or not.
        ConfigError: We are not allowed to.
    """
    headers = replacing(revision, data)
    reply = connection.request(f"$KV.{bucket}.{key}", data, headers=headers)
    return stored(reply.payload, bucket)
