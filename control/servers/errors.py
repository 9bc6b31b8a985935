"""What can go wrong with a server that we run ourselves."""

from __future__ import annotations

from connectors.errors import ConfigError, FatalError


class ServerMissingError(ConfigError):
    """The server's program is not on this machine."""


class ServerStartError(FatalError):
    """The server's program is there, but did not become ready."""
