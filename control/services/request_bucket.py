"""The bucket `CDC_ANSWERS`: which requests are carried out, and what was answered to them.

A NATS key-value store (ADR-8) that forgets a request an hour after it was last written. Its keys
are the ids that callers have given. Every write names the revision that it replaces.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from connectors.errors import ConfigError
from connectors.jetstream import api
from connectors.jetstream.key_values import ensure_key_values, replace

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection

BUCKET = "CDC_ANSWERS"
REMEMBERED = timedelta(hours=1)
_STREAM = f"KV_{BUCKET}"


class Record(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        digest: Of its method and of all that it says.
        by: Who carries it out: another one for each try.
        kind: Full name of the message that was answered; empty: it is being carried out.
        answer: That message, serialized.
        beat: Grows as long as somebody carries it out.
    """

    digest: str
    by: str
    kind: str = ""
    answer: bytes = b""
    beat: int = 0


def read(connection: Connection, request: str) -> tuple[Record | None, int]:
    """What is known of a request, None: nothing; and the revision of that.

    Raises:
        RetryableError: NATS does not answer.
        ConfigError: The bucket cannot be made or read; or another version has written there.
    """
    subject = _subject(request)
    try:
        message = api.last_message(connection, _STREAM, subject)
    except api.ApiError as error:
        if error.err_code != api.STREAM_NOT_FOUND:
            raise ConfigError("control.requests_refused", str(error), where=BUCKET) from error
        replicas = connection.spec.stream.replicas
        ensure_key_values(connection, BUCKET, replicas, max_age=REMEMBERED)
        return None, 0
    if message is None or not message.data:
        return None, message.seq if message else 0
    try:
        return msgspec.json.decode(message.data, type=Record), message.seq
    except msgspec.MsgspecError as error:
        raise ConfigError(
            "control.unreadable",
            f"what is stored there cannot be read: {error}",
            where=f"{BUCKET}.{request}",
            cure="send another request_id",
        ) from error


def write(connection: Connection, request: str, record: Record | None, revision: int) -> int | None:
    """Replace what is known of a request; None: forget it.

    Returns:
        The new revision; None: somebody else has written since `revision`.

    Raises:
        RetryableError: NATS does not answer: it may have been stored or not.
    """
    data = b"" if record is None else msgspec.json.encode(record)
    return replace(connection, BUCKET, request.lower(), data, revision)


def _subject(request: str) -> str:
    return f"$KV.{BUCKET}.{request.lower()}"
