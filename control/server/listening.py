"""Where the service listens, and how that is secured."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import grpc

from connectors.errors import ConfigError
from control.server import tokens

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from control.server.tokens import Callers


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the service listens.

    Attributes:
        address: `host:port`, or `unix:/path`.
        cert: The service's certificate (PEM), with those of its authorities; None: no TLS.
        key: Its private key.
        client_ca: Certificates of the authorities whose clients are let in; None: clients need no
            certificate.
        callers: The file that tells who may ask; None: everybody who can connect.
    """

    address: str
    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    callers: Path | None = None

    def credentials(self) -> grpc.ServerCredentials | None:
        """What makes connections secure; None: they are not.

        Raises:
            ConfigError: Files are missing or cannot be read, or the address is open to others
                without being secured.
        """
        if (self.cert is None) != (self.key is None):
            raise _wrong("--cert and --key belong together", "--cert")
        if self.client_ca is not None and self.cert is None:
            raise _wrong("--client-ca goes with --cert and --key", "--client-ca")
        if self.client_ca is not None and self.callers is None:
            raise _wrong("--client-ca goes with --callers, which gives roles", "--client-ca")
        if not self.is_local and (self.cert is None or self.callers is None):
            raise ConfigError(
                "control.open_address",
                f"{self.address} can be reached from other machines",
                where="--listen",
                cure="give --cert and --key for TLS, and --callers with the tokens or certificates"
                " of those who may ask (docs/security.md); or listen on 127.0.0.1",
            )
        if self.cert is None or self.key is None:
            return None
        return grpc.ssl_server_credentials(
            [(_read(self.key, "--key"), _read(self.cert, "--cert"))],
            root_certificates=_read(self.client_ca, "--client-ca") if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )

    def read_callers(self, environment: Mapping[str, str]) -> Callers | None:
        """Who may ask. Raises ConfigError as `tokens.load`."""
        return tokens.load(self.callers, environment) if self.callers else None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.address)


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to `host:port` or `unix:/path`."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "control.unreadable_file",
            f"{path} cannot be read: {error.strerror}",
            where=option,
        ) from None


def _wrong(message: str, option: str) -> ConfigError:
    return ConfigError("control.options", message, where=option)
