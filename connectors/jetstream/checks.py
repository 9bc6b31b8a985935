"""What is checked of a NATS server before anything is stored in it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from functools import cache
from typing import TYPE_CHECKING

import structlog

from connectors.errors import ConfigError
from connectors.jetstream import api

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection

log = structlog.get_logger()

# API level 4 is server 2.14 (one fsync a message), 5 is 2.15 (one fsync an atomic batch).
_OLDEST_LEVEL = 4
_BEST_LEVEL = 5
_MONITOR_TIMEOUT = 2.0


def check_server(connection: Connection) -> None:
    """Refuse servers without reliable atomic batches, and tell what could be lost.

    Raises:
        ConfigError: The server is older than 2.14.
        RetryableError: The server does not answer.
    """
    level = api.api_level(connection)
    if level < _OLDEST_LEVEL:
        raise ConfigError(
            "jetstream.too_old",
            f"nats-server {connection.server_version} has JetStream API level {level}; older "
            "servers store atomic batches message by message, or not reliably",
            where=connection.spec.shown,
            cure="upgrade to nats-server 2.15 or later",
        )
    if level < _BEST_LEVEL:
        log.warning(
            "nats-server 2.15 or later stores a batch with one fsync instead of one a message",
            version=connection.server_version,
            servers=connection.spec.shown,
        )
    report_durability(connection)


@cache
def _not_checked(servers: str) -> None:
    """Say what cannot be checked: once, however often a flow has to connect to these servers."""
    log.info(
        "sync_interval cannot be seen through the connection; set `sync_interval: always` on "
        "the server, and `nats.monitor` to have it checked",
        servers=servers,
    )


def report_durability(connection: Connection) -> None:
    """Log whether the server acknowledges before its disk has the data.

    JetStream's API does not show `sync_interval`; only the monitoring port does.
    """
    if not connection.spec.monitor:
        _not_checked(connection.spec.shown)
        return
    try:
        always = sync_always(connection.spec.monitor)
    except (OSError, ValueError) as error:
        log.warning(
            "sync_interval cannot be read from the monitoring port",
            monitor=connection.spec.monitor,
            reason=str(error),
        )
        return
    if not always:
        log.warning(
            "the server acknowledges before the data is on disk: a power failure may lose it; "
            "set `sync_interval: always`",
            monitor=connection.spec.monitor,
        )


def sync_always(monitor: str) -> bool:
    """Whether the server at this monitoring URL runs with `sync_interval: always`.

    Raises:
        OSError: It cannot be reached.
        ValueError: It does not answer as a monitoring port.
    """
    if not monitor.startswith(("http://", "https://")):
        raise ValueError("not an HTTP URL")
    url = f"{monitor.rstrip('/')}/jsz?config=true"
    with urllib.request.urlopen(url, timeout=_MONITOR_TIMEOUT) as answer:  # noqa: S310 - checked above
        config = json.load(answer).get("config")
    if not isinstance(config, dict):
        raise ValueError("JetStream is not enabled there")  # noqa: TRY004 - what it says, not its type
    return bool(config.get("sync_always"))
