"""How a client trusts servers, and what it shows them: files in PEM format."""

from __future__ import annotations

import ssl
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TlsSpec(BaseModel):
    """Files in PEM format; servers are verified against the system's authorities without `ca`.

    Verification cannot be switched off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: str = Field(default="", description="certificates of the authorities to trust")
    cert: str = Field(default="", description="the client's own certificate")
    key: str = Field(default="", description="the private key of `cert`")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if bool(self.cert) != bool(self.key):
            raise ValueError("cert and key belong together")
        return self

    def context(self) -> ssl.SSLContext:
        """What a connection is made with. Raises OSError: a file cannot be read, or is no PEM."""
        return client_context(self.ca, self.cert, self.key)


def client_context(ca: str = "", cert: str = "", key: str = "") -> ssl.SSLContext:
    """A context of a client that verifies the server and its name.

    Args:
        ca: A file with the authorities to trust; empty: the system's.
        cert: A file with our own certificate; empty: none.
        key: A file with its private key; empty: it lies in `cert`.

    Raises:
        OSError: A file cannot be read, or is no PEM.
    """
    context = ssl.create_default_context(cafile=ca or None)
    if cert:
        context.load_cert_chain(cert, key or None)
    return context
