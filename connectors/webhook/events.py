"""From changes to what is sent: events in the form of Standard Webhooks, and requests of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from json import dumps
from typing import TYPE_CHECKING, Literal

import msgspec

from connectors.errors import PermanentError
from connectors.subjects import topic_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Share

Body = Literal["event", "list", "ndjson"]

_CONTENT_TYPES: dict[Body, bytes] = {
    "event": b"application/json",
    "list": b"application/json",
    "ndjson": b"application/x-ndjson",
}


@dataclass(slots=True)
class Event:
    """A change as it is sent.

    Attributes:
        id: Names the change for ever: sink, stream and sequence.
        sequence: The stream's sequence of the change.
        topic: Its topic.
        type: `<topic>.<op>`.
        body: The JSON object.
        key: The row's key as JSON; empty: it has none.
        alone: It must not be overtaken by, and must not overtake, any other change of its topic.
    """

    id: str
    sequence: int
    topic: str
    type: str
    body: bytes
    key: str
    alone: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A request's body and what names it."""

    id: str
    content_type: bytes
    body: bytes


class _Source(msgspec.Struct):
    ts_ms: int | None = None


class _Envelope(msgspec.Struct):
    """What is looked at of a change."""

    op: str
    ts_ms: int | None = None
    before: msgspec.Raw = msgspec.Raw(b"null")
    after: msgspec.Raw = msgspec.Raw(b"null")
    source: _Source | None = None


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def identity(share: Share) -> str:
    """What the ids of a sink's changes of a stream begin with; another stream has another one."""
    text = f"{share.sink}\n{share.stream}\n{share.created}"
    return f"msg_{blake2b(text.encode(), digest_size=8).hexdigest()}"


def events(changes: Sequence[Delivered], prefix: str) -> Iterator[Event]:
    """Make an event of each change.

    Args:
        changes: In order; those with the same sequence stand together, and are numbered.
        prefix: From `identity`.

    Raises:
        PermanentError: `webhook.not_an_envelope`.
    """
    previous, number = 0, 0
    for change in changes:
        number = number + 1 if change.sequence == previous else 1
        previous = change.sequence
        part = f"_{number}" if number > 1 else ""
        yield _event(change, f"{prefix}_{change.sequence}{part}")


def message(batch: Sequence[Event], form: Body) -> Message:
    """The request that carries these events.

    The same events always make the same id and body. That of several names the first and the last
    of them, and has a digest of all: other ones between these two have another id.
    """
    if form == "event":
        (event,) = batch
        return Message(event.id, _CONTENT_TYPES[form], event.body)
    bodies = [event.body for event in batch]
    joined = b"[%s]" % b",".join(bodies) if form == "list" else b"\n".join([*bodies, b""])
    name = batch[0].id
    if len(batch) > 1:
        digest = blake2b("\n".join([event.id for event in batch]).encode(), digest_size=6)
        name = f"{name}-{batch[-1].sequence}-{digest.hexdigest()}"
    return Message(name, _CONTENT_TYPES[form], joined)


def _event(change: Delivered, name: str) -> Event:
    topic = topic_of(change.subject)
    try:
        envelope = _decode(change.envelope)
    except msgspec.DecodeError as error:
        raise PermanentError(
            "webhook.not_an_envelope",
            f"a change of {topic}, sequence {change.sequence}, is no envelope: {error}",
            where=topic,
            sequence=change.sequence,
        ) from None
    kind = f"{topic}.{envelope.op}"
    data: bytes | msgspec.Raw = change.envelope
    moment = envelope.source.ts_ms if envelope.source else None
    if moment is None:
        moment = envelope.ts_ms
    if moment is None:
        # `unwrap` has left the row alone, and nothing tells the time.
        moment, data = int(datetime.now(UTC).timestamp() * 1000), envelope.after
    alone = envelope.op == "t" or (envelope.op == "u" and _moves(change.key, envelope.before))
    parts = [
        f'{{"id":"{name}","type":{dumps(kind)},"timestamp":"{_time(moment)}"'.encode(),
        f',"key":{change.key or "null"},"position":"{change.position}"'.encode(),
    ]
    if change.unavailable:
        parts.append(b',"unavailable":' + msgspec.json.encode(change.unavailable))
    if change.json_nulls:
        parts.append(b',"json_nulls":' + msgspec.json.encode(change.json_nulls))
    body = b"".join([*parts, b',"data":', data, b"}"])
    return Event(name, change.sequence, topic, kind, body, change.key or "", alone)


def _moves(key: str | None, before: msgspec.Raw) -> bool:
    """Whether an update has changed the row's key, which `before` tells."""
    if key is None or bytes(before) == b"null":
        return False
    old = _decode_row(before)
    return any(
        name not in old
        or (old[name] != value and msgspec.json.decode(old[name]) != msgspec.json.decode(value))
        for name, value in _decode_row(key).items()
    )


@lru_cache(maxsize=64)
def _time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{milliseconds % 1000:03d}Z"
