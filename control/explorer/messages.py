"""Stored messages as they are shown."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from connectors.jetstream.frames import read_headers
from connectors.jetstream.stored import parse_headers
from connectors.jetstream.stream import source_name
from connectors.subjects import topic_of
from control.explorer.timestamps import to_nanoseconds

if TYPE_CHECKING:
    from connectors.jetstream.direct import Raw

# What the server adds to the headers when it gives a message, and what JetStream's batches need.
_NOT_SHOWN = (
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
)


_SINK = b"\r\nCdc-Sink: "


class _Envelope(msgspec.Struct):
    op: str = ""


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


@dataclass(frozen=True, slots=True)
class Message:
    """A change as it lies in a stream.

    Attributes:
        stream: The stream's name.
        subject: Where it lies in it.
        sequence: Its place.
        time: When it was stored, in nanoseconds since 1970.
        key: The row's key as JSON; empty without one.
        op: As in `contracts.Change`; empty where the row lies in the object store and was not read.
        position: Where it stands in its source.
        transaction: Of the source.
        size: Of the payload in bytes; of a row in the object store that was not read, 0.
        payload: JSON; perhaps its beginning only.
        cut: Whether that is so.
        headers: Name and value, as stored.
        sink: The only sink that is given it; empty: all that read its topic.
    """

    stream: str
    subject: str
    sequence: int
    time: int
    key: str
    op: str
    position: str
    transaction: str
    size: int
    payload: str
    cut: bool
    headers: tuple[tuple[str, str], ...] = ()
    sink: str = ""

    @property
    def source(self) -> str:
        """The source whose change it is."""
        return source_name(self.stream)

    @property
    def topic(self) -> str:
        """The topic that it lies in."""
        return topic_of(self.subject)

    @property
    def partition(self) -> int:
        """The partition of the topic."""
        return partition_of(self.subject)


def partition_of(subject: str) -> int:
    """The partition of a change that lies at `subject`."""
    return int(subject.rpartition(".")[2])


def operation(header: bytes, payload: bytes) -> str:
    """The op of a change whose payload is at hand; empty for what is no envelope."""
    start = header.find(b"\r\nCdc-Op: ")
    if start >= 0:
        return header[start + 10 : header.find(b"\r\n", start + 2)].decode()
    try:
        return _decode_envelope(payload).op
    except msgspec.MsgspecError:
        return ""


def addressed(header: bytes) -> str:
    """The only sink that is given a message; empty: all that read its topic."""
    start = header.find(_SINK)
    if start < 0:
        return ""
    return header[start + len(_SINK) : header.find(b"\r\n", start + 2)].decode()


def unpacked(raw: Raw) -> bytes | None:
    """The payload of a message; None where it lies in the object store, or is damaged."""
    header = raw.header
    if b"\r\nCdc-Object: " in header:
        return None
    if b"\r\nCdc-Encoding: " in header:
        try:
            return zlib.decompress(raw.payload)
        except zlib.error:
            return None
    return raw.payload


def shown(
    stream: str, raw: Raw, payload: bytes | None, preview: int, *, headers: bool = False
) -> Message:
    """A message with the beginning of its payload.

    Args:
        stream: Where it lies.
        raw: As it was read.
        payload: Unpacked; None: it is not at hand.
        preview: How many bytes of it are shown.
        headers: Whether they are shown, too.
    """
    parsed = parse_headers(raw.header)
    text = payload or b""
    part = text[:preview]
    fields = read_headers(raw.header) if headers else {}
    return Message(
        stream=stream,
        subject=raw.subject,
        sequence=raw.sequence,
        time=to_nanoseconds(raw.time),
        key=(parsed.key or "") if parsed else "",
        op=operation(raw.header, text) if payload is not None else _header_op(raw.header),
        position=parsed.position if parsed else "",
        transaction=parsed.transaction if parsed else "",
        size=len(text),
        # A character that was cut in two is left out.
        payload=part.decode("utf-8", "ignore"),
        cut=payload is None or len(part) < len(text),
        headers=tuple((name, value) for name, value in fields.items() if name not in _NOT_SHOWN),
        sink=parsed.sink if parsed else "",
    )


def _header_op(header: bytes) -> str:
    return operation(header, b"") if b"\r\nCdc-Op: " in header else ""
