"""Envelopes for messages that hold the row alone.

A pipeline may have a topic's messages hold rows instead of envelopes
(`contracts.UnwrappedChange`). The header `Cdc-Op` tells the operation then, and whoever reads a
message for a sink makes an envelope again, so that sinks know of nothing else. It holds `before`,
`after` and `op` only.
"""

from __future__ import annotations


def wrapped(op: str, key: str | None, row: bytes) -> bytes:
    """The envelope of a row that was stored alone.

    Args:
        op: Of the change.
        key: Of the row, as it is stored.
        row: The payload: the new row, or null.
    """
    before = b"null" if op != "d" or key is None else key.encode()
    return b'{"before":%b,"after":%b,"op":"%b"}' % (before, row, op.encode())
