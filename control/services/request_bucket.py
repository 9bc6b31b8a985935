"""The bucket `CDC_ANSWERS`: which requests are carried out, and what was answered to them.

A NATS key-value store (ADR-8) that forgets a request an hour after it was last written. Its keys
are the ids that callers have given. Every write names the revision that it replaces.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.layout import ensure_bucket, nanoseconds
from connectors.jetstream.refusals import Kind, classify

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection

BUCKET = "CDC_ANSWERS"
REMEMBERED = timedelta(hours=1)
_STREAM = f"KV_{BUCKET}"
_DELETED = "KV-Operation: DEL\r\n"


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
        _make(connection)
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
    headers = f"Nats-Expected-Last-Subject-Sequence: {revision}\r\n"
    data = b"" if record is None else msgspec.json.encode(record)
    if record is None:
        headers += _DELETED
    reply = connection.request(_subject(request), data, headers=headers)
    ack = api.decode_ack(reply.payload)
    if ack.error is None:
        return ack.seq
    if classify(ack.error) is Kind.OVERTAKEN:
        return None
    raise RetryableError(
        "jetstream.not_stored", f"{ack.error.description} ({ack.error.err_code})", where=BUCKET
    )


def _make(connection: Connection) -> None:
    ensure_bucket(
        connection,
        _STREAM,
        [f"$KV.{BUCKET}.>"],
        {
            "max_msgs_per_subject": 1,
            "max_age": nanoseconds(REMEMBERED),
            "discard": "new",
            "num_replicas": connection.spec.stream.replicas,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        },
    )


def _subject(request: str) -> str:
    return f"$KV.{BUCKET}.{request.lower()}"
