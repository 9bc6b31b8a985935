"""Page tokens: where a list goes on, free of I/O.

A token holds for each stream the next sequence to be looked at, so that it goes on behind the last
message whatever is stored meanwhile; and a digest of what was asked for, so that one that belongs
to another question is refused. It is no secret, and gives no right to anything.
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import fields, is_dataclass
from hashlib import blake2b

import msgspec


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a stream is read on.

    Attributes:
        created: CRC-32 of the time at which the stream was created.
        sequence: The next one, upwards or downwards.
    """

    created: int
    sequence: int


class Token(msgspec.Struct, frozen=True, array_like=True):
    """What a token says.

    Attributes:
        question: `question_digest` of what was asked.
        places: By stream.
        skip: So many matching messages are to be passed over first.
    """

    question: str
    places: dict[str, Place]
    skip: int = 0


def encode(token: Token) -> str:
    """The text that is given out; `decode` reads it back."""
    data = zlib.compress(msgspec.msgpack.encode(token), 6)
    return urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str, question: str) -> Token:
    """Read what `encode` wrote.

    Raises:
        ValueError: It is no token, or one of another question; says so.
    """
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        inflate = zlib.decompressobj()
        token = msgspec.msgpack.decode(inflate.decompress(data, _MOST), type=Token)
    except (ValueError, zlib.error, msgspec.MsgspecError):
        raise ValueError("this is no page token of this service") from None
    if token.question != question:
        raise ValueError("the page token belongs to a request with another filter or order")
    return token


# Of what a token unpacks to: that of some ten thousand streams.
_MOST = 1 << 20


def stream_digest(created: str) -> int:
    """What a token holds of a stream's identity."""
    return zlib.crc32(created.encode())


def question_digest(*parts: object) -> str:
    """What a token holds of a question: the same in every process, services share tokens."""
    return blake2b(repr([_in_order(part) for part in parts]).encode(), digest_size=8).hexdigest()


def _in_order(part: object) -> object:
    """A part of a question whose text is always the same; a set's is not."""
    if isinstance(part, frozenset):
        return sorted(map(repr, part))
    if is_dataclass(part):
        return [(field.name, _in_order(getattr(part, field.name))) for field in fields(part)]
    return part
