"""What nats-py is told: who we are, how TLS is done, how patiently it reconnects."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from connectors.backoff import doubled
from connectors.errors import ConfigError, RetryableError

if TYPE_CHECKING:
    from typing import Any

    from nats.aio.client import Server

    from connectors.jetstream.spec import NatsSpec
    from connectors.tls import TlsSpec

_PAUSES_S = (0.05, 5.0)


def client_options(spec: NatsSpec) -> dict[str, Any]:
    """Arguments for `nats.aio.client.Client.connect`, without callbacks.

    Raises:
        ConfigError: Certificates cannot be read.
    """
    options: dict[str, Any] = {
        "servers": list(spec.url),
        "name": "waxtap",
        "inbox_prefix": spec.inbox_prefix,
        "connect_timeout": 3,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.2,
        "reconnect_to_server_handler": _next_server,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        # Nothing is queued while there is no connection.
        "pending_size": 0,
        "flush_timeout": 2,
    }
    if spec.user:
        options |= {"user": spec.user, "password": spec.password.get_secret_value()}
    if spec.token.get_secret_value():
        options["token"] = spec.token.get_secret_value()
    if spec.creds:
        options["user_credentials"] = spec.creds
    if spec.nkey:
        options["nkeys_seed"] = spec.nkey
    if spec.tls:
        options["tls"] = _tls_context(spec.tls)
    return options


def explain(spec: NatsSpec, failure: Exception | None) -> ConfigError | RetryableError:
    """The error to raise when no first connection comes about; None: nobody answered."""
    text = "no answer" if failure is None else str(failure) or type(failure).__name__
    if isinstance(failure, ssl.SSLError):
        return ConfigError(
            "jetstream.tls", text, where=spec.shown, cure="check `nats.tls` and the URL"
        )
    if "authorization" in text.lower() or "authentication" in text.lower():
        return ConfigError(
            "jetstream.unauthorized",
            "the server refuses the credentials",
            where=spec.shown,
            cure="check user, token, creds or nkey of `nats`",
        )
    return RetryableError("jetstream.unreachable", text, where=spec.shown)


def _tls_context(spec: TlsSpec) -> ssl.SSLContext:
    try:
        return spec.context()
    except OSError as error:
        raise ConfigError(
            "jetstream.tls", f"certificate files: {error}", where="nats.tls"
        ) from error


def _next_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """nats-py's hook: the server with the fewest failures, after a pause that grows with them."""
    server = min(servers, key=lambda candidate: candidate.reconnects)
    return server, doubled(server.reconnects, *_PAUSES_S)
