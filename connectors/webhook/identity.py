"""By what an endpoint is known to be a certain source's, at whatever address.

`GET /health` answers with a header that holds a hash of the source's name and of the time, in
nanoseconds, at which its inbox was made. Whoever can read the inbox's configuration can make it as
well; nobody else learns anything from it.
"""

from __future__ import annotations

import http.client
import ssl
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.webhook.source_spec import SourceSpec

HEALTH_HEADER = "waxtap-inbox"
_WITHIN_S = 2.0
# To where one connects to reach what listens at every address.
_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def identify(source: str, created: str) -> str:
    """What the header of an endpoint holds.

    Args:
        source: The source's name.
        created: When its inbox was made.
    """
    return blake2b(f"{source} {created}".encode(), digest_size=16).hexdigest()


def listens(spec: SourceSpec, identity: str) -> bool:
    """Whether it is an endpoint of this identity that listens at the address of `spec`.

    It may have been started with another configuration: with TLS or without.
    """
    tls = spec.tls is not None
    return any(_asked(spec, encrypted=encrypted) == identity for encrypted in (tls, not tls))


def _asked(spec: SourceSpec, *, encrypted: bool) -> str:
    host, port = spec.address
    host = _NEAR.get(host, host)
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_WITHIN_S, context=_believing())
        if encrypted
        else http.client.HTTPConnection(host, port, timeout=_WITHIN_S)
    )
    with closing(connection):
        try:
            connection.request("GET", "/health")
            return connection.getresponse().getheader(HEALTH_HEADER, "")
        except (OSError, http.client.HTTPException):
            # No endpoint: what else it may be is of no interest.
            return ""


def _believing() -> ssl.SSLContext:
    """The certificate may be for another name; nothing is told that is worth protecting."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
