"""Signatures of Standard Webhooks, symmetric (`v1`), free of I/O.

Specification: standardwebhooks.com, "Signature scheme". What is signed is
`<webhook-id>.<webhook-timestamp>.<body>`; the header holds one signature for each active secret,
with blanks between, so that a secret can be exchanged without a pause.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "whsec_"
# The specification's bounds of a key.
_SHORTEST, _LONGEST = 24, 64


def key_of(secret: str) -> bytes:
    """The key that a secret `whsec_<base64>` stands for.

    Raises:
        ValueError: It has another form. The message does not show it.
    """
    text = secret.removeprefix(PREFIX)
    if text == secret:
        raise ValueError(f"a secret begins with {PREFIX}")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except Base64Error:
        raise ValueError(f"behind {PREFIX} a secret is base64") from None
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"a secret holds {_SHORTEST} to {_LONGEST} bytes")
    return key


def signature(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`.

    Args:
        keys: Of all active secrets; each of them signs.
        message_id: The value of `webhook-id`.
        timestamp: The value of `webhook-timestamp`: Unix time of this attempt, in seconds.
        body: Exactly as it is sent.
    """
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests)
