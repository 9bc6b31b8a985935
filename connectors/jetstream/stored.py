"""What is read from a stream: a stored message's headers and its JetStream reply subject."""

from __future__ import annotations

import re
from json import loads
from typing import NamedTuple

from connectors.jetstream.frames import read_headers

# Our headers in the order in which `frames` writes them, between those of NATS.
_FAST = re.compile(
    r"NATS/1\.0(?:\r\nNats-[^\r]*)*\r\nCdc-Position: ([^\r]*)\r\n"
    r"(?:Cdc-Tx: ([^\r]*)\r\n)?(?:Cdc-Schema: ([^\r]*)\r\n)?"
    r"(?:Cdc-Key: ([^\r]*)\r\n)?((?:Cdc-[UJFEO][^\r]*\r\n)*)(?!Cdc-[PTSKUJFEO])"
)
_LAST = ";last"


class Headers(NamedTuple):
    """The headers of a stored change.

    Attributes:
        position: `Cdc-Position`.
        transaction: The id in `Cdc-Tx`, empty without one.
        last: Whether `Cdc-Tx` marks the last change of its transaction.
        schema: `Cdc-Schema`, empty without one.
        key: `Cdc-Key`, None without one.
        unavailable: `Cdc-Unavailable`.
        json_nulls: `Cdc-Json-Null`.
        failed: `Cdc-Failed`, empty without one.
        encoding: `Cdc-Encoding`, empty without one.
        object: `Cdc-Object`, empty without one.
        op: `Cdc-Op`, empty without one.
        sink: `Cdc-Sink`, empty without one.
    """

    position: str
    transaction: str
    last: bool
    schema: str
    key: str | None
    unavailable: tuple[str, ...] = ()
    json_nulls: tuple[str, ...] = ()
    failed: str = ""
    encoding: str = ""
    object: str = ""
    op: str = ""
    sink: str = ""


def parse_headers(header: bytes) -> Headers | None:
    """Read the headers of a stored message; None for one that is no change (no position)."""
    text = header.decode("ascii", "replace")
    found = _FAST.match(text)
    if found is None:
        return _parse_any(read_headers(header))
    position, transaction, schema, key, rest = found.groups()
    if rest:
        return _parse_any(read_headers(header))
    if transaction is None:
        return Headers(position, "", False, schema or "", key)
    if transaction[-5:] == _LAST:
        return Headers(position, transaction[:-5], True, schema or "", key)
    return Headers(position, transaction, False, schema or "", key)


def _parse_any(fields: dict[str, str]) -> Headers | None:
    if "Cdc-Position" not in fields:
        return None
    transaction = fields.get("Cdc-Tx", "")
    return Headers(
        fields["Cdc-Position"],
        transaction.removesuffix(_LAST),
        transaction.endswith(_LAST),
        fields.get("Cdc-Schema", ""),
        fields.get("Cdc-Key"),
        tuple(loads(fields.get("Cdc-Unavailable", "[]"))),
        tuple(loads(fields.get("Cdc-Json-Null", "[]"))),
        fields.get("Cdc-Failed", ""),
        fields.get("Cdc-Encoding", ""),
        fields.get("Cdc-Object", ""),
        fields.get("Cdc-Op", ""),
        fields.get("Cdc-Sink", ""),
    )


def status(header: bytes) -> int:
    """The code of a status message (`NATS/1.0 408 Request Timeout`); 0 for a real message."""
    return int(header[9:12]) if header[8:9] == b" " else 0


def sequences(reply: bytes) -> tuple[int, int]:
    """Stream sequence and consumer sequence of a delivered message, from its reply subject.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or with
    domain and account hash behind `$JS.ACK`, and a further token at the end (ADR-15).

    Raises:
        ValueError: It is no such subject.
    """
    words = reply.split(b".")
    count = len(words)
    if count == 9:
        return int(words[5]), int(words[6])
    if count >= 11 and words[1] == b"ACK":
        return int(words[7]), int(words[8])
    raise ValueError(f"not the reply subject of a delivered message: {reply!r}")
