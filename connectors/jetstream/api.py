"""JetStream's request API, as far as it is used here, with typed answers.

Source: the NATS documentation, "JetStream wire API reference", and the server's jetstream_api.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream.connection import Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.replies import Reply

STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
CONSUMER_NOT_FOUND = 10014
MESSAGE_DELETED = 10057
STREAM_NAME_IN_USE = 10058
DUPLICATE_IN_BATCH = 10201

_UNAVAILABLE = 500
# So many requests are under way at once; the answers may be as large as messages.
_AT_ONCE = 100


class ApiError(Exception):
    """The server's refusal.

    Args:
        code: As in HTTP.
        err_code: JetStream's own number.
        description: JetStream's own words.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(code, err_code, description)
        self.code, self.err_code, self.description = code, err_code, description

    def __str__(self) -> str:
        return f"{self.description} ({self.err_code})"


class Refusal(msgspec.Struct, frozen=True):
    """An `error` object."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class StreamState(msgspec.Struct, frozen=True):
    """What a stream holds."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream's configuration as the server gives it, its state, and when it was created."""

    config: dict[str, object]
    created: str
    state: StreamState


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as `STREAM.MSG.GET` gives it; `hdrs` is the header block, `time` RFC 3339."""

    subject: str
    seq: int
    hdrs: bytes = b""
    data: bytes = b""
    time: str = ""


class PubAck(msgspec.Struct, frozen=True):
    """The answer to a publication: an error, or where it was stored."""

    error: Refusal | None = None
    stream: str = ""
    seq: int = 0
    batch: str = ""
    count: int = 0
    duplicate: bool = False


class _Got(msgspec.Struct, frozen=True):
    message: StoredMessage


class Delivered(msgspec.Struct, frozen=True):
    """How far a consumer has delivered; of a new one, behind what it begins."""

    stream_seq: int = 0
    consumer_seq: int = 0


class ConsumerInfo(msgspec.Struct, frozen=True):
    """A consumer."""

    name: str
    delivered: Delivered = Delivered()
    num_pending: int = 0


class _Names(msgspec.Struct, frozen=True):
    consumers: list[str] | None = None
    total: int = 0


class _StreamNames(msgspec.Struct, frozen=True):
    streams: list[str] | None = None


class _Level(msgspec.Struct, frozen=True):
    level: int = 0


class _Account(msgspec.Struct, frozen=True):
    api: _Level = _Level()


class _Failure(msgspec.Struct, frozen=True):
    error: Refusal | None = None


_T = TypeVar("_T")
_decode_failure = msgspec.json.Decoder(_Failure).decode
decode_ack = msgspec.json.Decoder(PubAck).decode


def call(connection: Connection, subject: str, body: object, answer: type[_T]) -> _T:
    """Send a request to `$JS.API.<subject>`.

    Args:
        connection: Where to.
        subject: Behind `$JS.API.`.
        body: Encoded as JSON; None for an empty request.
        answer: The shape of the answer.

    Raises:
        ApiError: JetStream refuses.
        RetryableError: No answer, or JetStream is not available at the moment.
        ConfigError: JetStream is not enabled, or we lack the permission.
    """
    payload = b"" if body is None else msgspec.json.encode(body)
    return _read(connection, subject, connection.request(f"$JS.API.{subject}", payload), answer)


def _read(connection: Connection, subject: str, reply: Reply, answer: type[_T]) -> _T:
    error = _decode_failure(reply.payload).error
    if error is not None:
        if error.err_code in {10039, 10076}:
            raise ConfigError(
                "jetstream.not_enabled",
                f"{error.description} ({error.err_code})",
                where=connection.spec.shown,
                cure="enable JetStream in the server's configuration, and for the account",
            )
        if error.code > _UNAVAILABLE:
            raise RetryableError(
                "jetstream.unavailable",
                f"{error.description} ({error.err_code})",
                where=f"{subject} at {connection.spec.shown}",
            )
        raise ApiError(error.code, error.err_code, error.description)
    return msgspec.json.decode(reply.payload, type=answer)


def _calls(
    connection: Connection,
    subject: str,
    bodies: Sequence[Mapping[str, object]],
    answer: type[_T],
    fine: set[int],
) -> list[_T | None]:
    """Many calls at once. Raises as `call`; None for those with an error that is fine."""
    found: list[_T | None] = []
    for first in range(0, len(bodies), _AT_ONCE):
        wanted = [
            Wanted(f"$JS.API.{subject}", msgspec.json.encode(body))
            for body in bodies[first : first + _AT_ONCE]
        ]
        for reply in connection.requests(wanted):
            try:
                found.append(_read(connection, subject, reply, answer))
            except ApiError as error:
                if error.err_code not in fine:
                    raise
                found.append(None)
    return found


def api_level(connection: Connection) -> int:
    """The server's JetStream API level. Raises as `call`."""
    return call(connection, "INFO", None, _Account).api.level


def stream_info(connection: Connection, stream: str) -> StreamInfo | None:
    """The stream, or None when there is none. Raises as `call`."""
    try:
        return call(connection, f"STREAM.INFO.{stream}", None, StreamInfo)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


def stream_names(connection: Connection, subject: str) -> list[str]:
    """Streams that hold a subject, or part of what it stands for; 1024 of them at most."""
    found = call(connection, "STREAM.NAMES", {"subject": subject}, _StreamNames)
    return found.streams or []


def create_stream(connection: Connection, config: Mapping[str, object]) -> StreamInfo:
    """Create a stream; one that exists with the same configuration is returned."""
    return call(connection, f"STREAM.CREATE.{config['name']}", config, StreamInfo)


def update_stream(connection: Connection, config: Mapping[str, object]) -> StreamInfo:
    """Change a stream's configuration."""
    return call(connection, f"STREAM.UPDATE.{config['name']}", config, StreamInfo)


def delete_stream(connection: Connection, stream: str) -> bool:
    """Delete a stream with everything in it; False: there was none."""
    try:
        call(connection, f"STREAM.DELETE.{stream}", None, _Failure)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return False
        raise
    return True


def message(connection: Connection, stream: str, sequence: int) -> StoredMessage | None:
    """The message with this sequence, read from the stream's leader; None when it is gone."""
    return _message(connection, stream, {"seq": sequence})


def next_message(
    connection: Connection, stream: str, sequence: int, subject: str
) -> StoredMessage | None:
    """The first message at or behind `sequence` whose subject matches, from the leader."""
    return _message(connection, stream, {"seq": sequence, "next_by_subj": subject})


def last_message(connection: Connection, stream: str, subject: str) -> StoredMessage | None:
    """The last message on a subject, read from the stream's leader; None when there is none."""
    return _message(connection, stream, {"last_by_subj": subject})


def messages(
    connection: Connection, stream: str, wanted: Sequence[int | str]
) -> list[StoredMessage | None]:
    """Messages by their sequences, or the last ones on subjects, read from the stream's leader."""
    bodies = [{"seq": each} if isinstance(each, int) else {"last_by_subj": each} for each in wanted]
    return [
        got.message if got else None
        for got in _calls(connection, f"STREAM.MSG.GET.{stream}", bodies, _Got, {MESSAGE_NOT_FOUND})
    ]


def purge(connection: Connection, stream: str, subjects: Sequence[str], *, keep: int = 0) -> None:
    """Delete what lies on these subjects, but for the last `keep` messages of each."""
    bodies = [{"filter": subject, "keep": keep} for subject in subjects]
    _calls(connection, f"STREAM.PURGE.{stream}", bodies, _Failure, set())


def delete_message(connection: Connection, stream: str, sequence: int) -> None:
    """Delete a message; one that is gone already is fine."""
    body = {"seq": sequence, "no_erase": True}
    _calls(
        connection,
        f"STREAM.MSG.DELETE.{stream}",
        [body],
        _Failure,
        {MESSAGE_NOT_FOUND, MESSAGE_DELETED},
    )


def create_consumer(
    connection: Connection, stream: str, config: Mapping[str, object]
) -> ConsumerInfo:
    """Create a consumer. Raises ApiError also when one of that name exists."""
    body = {"stream_name": stream, "config": config, "action": "create"}
    return call(connection, f"CONSUMER.CREATE.{stream}.{config['name']}", body, ConsumerInfo)


def consumer_info(connection: Connection, stream: str, name: str) -> ConsumerInfo:
    """A consumer. Raises as `call`."""
    return call(connection, f"CONSUMER.INFO.{stream}.{name}", None, ConsumerInfo)


def delete_consumer(connection: Connection, stream: str, name: str) -> None:
    """Delete a consumer; one that is gone already is fine."""
    try:
        call(connection, f"CONSUMER.DELETE.{stream}.{name}", None, _Failure)
    except ApiError as error:
        if error.err_code not in {CONSUMER_NOT_FOUND, STREAM_NOT_FOUND}:
            raise


def consumer_names(connection: Connection, stream: str) -> list[str]:
    """The names of all consumers of a stream."""
    names: list[str] = []
    while True:
        page = call(connection, f"CONSUMER.NAMES.{stream}", {"offset": len(names)}, _Names)
        names += page.consumers or []
        if not page.consumers or len(names) >= page.total:
            return names


def _message(
    connection: Connection, stream: str, body: Mapping[str, object]
) -> StoredMessage | None:
    try:
        return call(connection, f"STREAM.MSG.GET.{stream}", body, _Got).message
    except ApiError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return None
        raise
