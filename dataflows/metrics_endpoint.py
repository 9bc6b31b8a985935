"""Serves what a flow's process counts to Prometheus, without Bytewax's own, open web server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import start_http_server

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger()


def serve(environment: Mapping[str, str]) -> None:
    """Answer `GET /metrics` at `WAXTAP_METRICS` (`host:port`), if that is set.

    Somebody else on that port is no reason not to run.

    Raises:
        ConfigError: It is no address.
    """
    address = environment.get("WAXTAP_METRICS", "")
    if not address:
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ConfigError(
            "metrics.address",
            f"{address!r} is no address",
            where="WAXTAP_METRICS",
            cure="write host:port, such as 127.0.0.1:9400",
        )
    try:
        start_http_server(int(port), host or "127.0.0.1")
    except OSError as error:
        log.warning("metrics cannot be served", address=address, reason=error.strerror)
