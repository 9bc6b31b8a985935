"""Whether a request comes from who it says: signatures and tokens, free of I/O.

Sources: standardwebhooks.com, "Verifying webhook authenticity"; GitHub documentation, "Validating
webhook deliveries"; Stripe documentation, "Verify webhook signatures manually".
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# So many signatures of one request are looked at.
_MOST = 16


class Verification(Protocol):
    """A way to know the sender."""

    def refusal(self, headers: Mapping[str, str], body: bytes, now: float) -> str:
        """Why a request is not believed; empty: it is.

        Args:
            headers: Names in small letters.
            body: Exactly as it came.
            now: Unix time in seconds.
        """
        ...


class Unverified:
    """Believes everybody."""

    def refusal(self, headers: Mapping[str, str], body: bytes, now: float) -> str:
        """Nothing."""
        return ""


class StandardWebhooks:
    """`webhook-signature: v1,<base64> v1,<base64> …` over `<id>.<timestamp>.<body>`.

    Args:
        keys: Of all active secrets (`signatures.key_of`).
        tolerance: How old or how far ahead a timestamp may be, in seconds.
    """

    def __init__(self, keys: Sequence[bytes], tolerance: float) -> None:
        self._keyed, self._tolerance = _keyed(keys), tolerance

    def refusal(self, headers: Mapping[str, str], body: bytes, now: float) -> str:
        """Why a request is not believed; see `Verification`."""
        identity, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        given = headers.get("webhook-signature", "")
        if not (identity and sent and given):
            return _MISSING
        if not _recent(sent, now, self._tolerance):
            return _STALE
        signed = b"%b.%b.%b" % (identity.encode("latin-1"), sent.encode("latin-1"), body)
        digests = []
        for part in given.split(" ")[:_MOST]:
            version, _, text = part.partition(",")
            if version == "v1":
                try:
                    digests.append(b64decode(text, validate=True))
                except (Base64Error, ValueError):
                    continue
        return _match(self._keyed, signed, digests)


class GithubSignature:
    """`X-Hub-Signature-256: sha256=<hex>` over the body.

    Args:
        keys: The active secrets' bytes.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keyed = _keyed(keys)

    def refusal(self, headers: Mapping[str, str], body: bytes, now: float) -> str:
        """Why a request is not believed; see `Verification`."""
        kind, found, text = headers.get("x-hub-signature-256", "").partition("=")
        if not found or kind != "sha256":
            return _MISSING
        return _match(self._keyed, body, _from_hex([text]))


class StripeSignature:
    """`Stripe-Signature: t=<seconds>,v1=<hex>,v1=<hex>` over `<t>.<body>`.

    Args:
        keys: The active secrets' bytes, prefix and all.
        tolerance: How old or how far ahead `t` may be, in seconds.
    """

    def __init__(self, keys: Sequence[bytes], tolerance: float) -> None:
        self._keyed, self._tolerance = _keyed(keys), tolerance

    def refusal(self, headers: Mapping[str, str], body: bytes, now: float) -> str:
        """Why a request is not believed; see `Verification`."""
        pairs = [
            part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")
        ]
        sent = next((value for name, _, value in pairs if name == "t"), "")
        given = [value for name, _, value in pairs if name == "v1"]
        if not (sent and given):
            return _MISSING
        if not _recent(sent, now, self._tolerance):
            return _STALE
        signed = b"%b.%b" % (sent.encode("latin-1"), body)
        return _match(self._keyed, signed, _from_hex(given[:_MOST]))


class BearerToken:
    """`Authorization: Bearer <token>`.

    Args:
        tokens: Each of them is good, but for blanks and line ends around it: files end with one.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._tokens = [token.strip() for token in tokens]

    def refusal(self, headers: Mapping[str, str], body: bytes, now: float) -> str:
        """Why a request is not believed; see `Verification`."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            return _MISSING
        token = given.strip().encode("latin-1")
        # Every token is compared, and in constant time.
        matches = [hmac.compare_digest(token, known) for known in self._tokens]
        return "" if any(matches) else _WRONG


_MISSING, _WRONG = "the signature or token is missing", "the signature or token is wrong"
_STALE = "the timestamp is too far from now"


def _recent(text: str, now: float, tolerance: float) -> bool:
    return text.isascii() and text.isdigit() and abs(now - int(text[:20])) <= tolerance


def _from_hex(texts: Iterable[str]) -> list[bytes]:
    found = []
    for text in texts:
        try:
            found.append(bytes.fromhex(text))
        except ValueError:
            continue
    return found


def _keyed(keys: Sequence[bytes]) -> list[hmac.HMAC]:
    """Each key as the beginning of a digest, to be copied.

    `hmac.digest` would begin anew each time, and let another thread have the interpreter meanwhile,
    even for the few microseconds that a small body takes.
    """
    return [hmac.new(key, digestmod="sha256") for key in keys]


def _digest(keyed: hmac.HMAC, signed: bytes) -> bytes:
    own = keyed.copy()
    own.update(signed)
    return own.digest()


def _match(keyed: Sequence[hmac.HMAC], signed: bytes, given: Sequence[bytes]) -> str:
    """Empty if one of the signatures is one that a key makes; each is compared."""
    expected = [_digest(each, signed) for each in keyed]
    matches = [hmac.compare_digest(one, other) for one in expected for other in given]
    return "" if any(matches) else _WRONG
