"""What is written to an inbox: one message a request, alone or as an atomic batch (ADR-50).

`Cdc-Request` holds the request's headers, as far as they are kept, as a JSON object in ASCII;
`Nats-Msg-Id` a hash of the request's identity, by which JetStream knows a repetition.
"""

from __future__ import annotations

from hashlib import blake2b
from json import dumps
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.errors import GapError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Of a message's size, for everything but the body.
HEADERS_ROOM = 16 * 1024
# Of it, for the request's headers: the lines of the batch and of the identity need the rest.
REQUEST_ROOM = HEADERS_ROOM - 512
_decode = msgspec.json.Decoder(dict[str, str]).decode


class Entry(NamedTuple):
    """A message to be stored: its lines of headers, and its body."""

    head: str
    body: bytes

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.head) + len(self.body) + 200


def entry(body: bytes, headers: Mapping[str, str], identity: str) -> Entry:
    """A request as it is stored."""
    if all(map(str.isascii, headers.values())):
        text = msgspec.json.encode(headers).decode()
    else:
        text = dumps(dict(headers), separators=(",", ":"))
    head = f"Cdc-Request: {text}\r\n"
    if identity:
        # Of one length whatever the sender writes, and without what a header may not hold.
        name = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        head = f"Nats-Msg-Id: {name}\r\n{head}"
    return Entry(head, body)


def encode_together(subject: str, entries: Sequence[Entry], batch: str, reply: str) -> bytes:
    """Frames that store all entries or none, 1 to 1000 of them; one answer."""
    if len(entries) == 1:
        return _frame(subject, reply, "", entries[0])
    parts = []
    last = len(entries)
    for number, each in enumerate(entries, 1):
        lines = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
        if number == last:
            lines += "Nats-Batch-Commit: 1\r\n"
        parts.append(_frame(subject, reply if number == last else "", lines, each))
    return b"".join(parts)


def encode_singly(subject: str, entries: Sequence[Entry], replies: Sequence[str]) -> bytes:
    """Frames that store each entry by itself, with an answer each."""
    return b"".join(
        _frame(subject, reply, "", each) for reply, each in zip(replies, entries, strict=True)
    )


def read_request(text: str | None, where: str) -> dict[str, str]:
    """Read a value of `Cdc-Request`.

    Raises:
        GapError: There is none: somebody else has written the message.
    """
    try:
        return _decode(text or "")
    except (msgspec.DecodeError, UnicodeError):
        raise GapError(
            "jetstream.foreign_message",
            "a message was not written by Waxtap: its header Cdc-Request is missing",
            where=where,
            cure="take the right to publish to CDCIN.> from the other writer",
        ) from None


class Got(NamedTuple):
    """What a message's header block tells that a direct get has answered.

    Attributes:
        sequence: Its number in the inbox.
        stored: When it was stored (RFC 3339).
        request: `Cdc-Request`; None without one.
    """

    sequence: int
    stored: str
    request: str | None


def read_got(header: bytes) -> Got:
    """Read the answer to a direct get: only what is wanted of it, as there is one for each request.

    Raises:
        ValueError: It is no such answer.
    """
    text = header.decode("utf-8", "replace")
    request = _field(text, "Cdc-Request", text.find)
    # The server writes its own behind those of the message.
    sequence = _field(text, "Nats-Sequence", text.rfind)
    stored = _field(text, "Nats-Time-Stamp", text.rfind)
    if sequence is None or stored is None:
        raise ValueError("the sequence or the time is missing")
    return Got(int(sequence), stored, request)


def _field(text: str, name: str, find: Callable[[str], int]) -> str | None:
    line = f"\r\n{name}: "
    start = find(line)
    if start < 0:
        return None
    start += len(line)
    return text[start : text.index("\r\n", start)]


def _frame(subject: str, reply: str, lines: str, each: Entry) -> bytes:
    head = f"NATS/1.0\r\n{lines}{each.head}\r\n"
    answer = f" {reply}" if reply else ""
    size = len(head)
    return (
        f"HPUB {subject}{answer} {size} {size + len(each.body)}\r\n{head}".encode("ascii")
        + each.body
        + b"\r\n"
    )
