"""`waxtap ingest`: only the HTTP endpoint of a webhook source, for `serve: false`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
from cyclopts import Parameter

from connectors.errors import ConfigError
from dataflows import stopping
from dataflows.capture_source import connector
from dataflows.configuration.places import placing
from dataflows.spec import load

if TYPE_CHECKING:
    from connectors.webhook.source import WebhookSource
    from dataflows.spec import Config, SourceConfig

log = structlog.get_logger()

_LOOK_EVERY = 0.5


def ingest(
    *,
    source: str,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> None:
    """Take requests for a webhook source whose capture flow does not listen itself.

    Each is stored in the source's inbox before it is answered; any number of these processes, and
    the capture flow, may run or not, on one host or several. SIGTERM answers what was accepted, and
    ends.

    Args:
        source: The source's name.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
    """
    stopping.install()
    whole = load(config or Path(os.environ.get("WAXTAP_CONFIG", "waxtap.yaml")), os.environ)
    chosen = _chosen(whole, source)
    with placing(f"sources.{source}", type(chosen.spec).model_fields):
        endpoint = _webhook(whole, chosen).serve()
    stopping.running()
    try:
        while not stopping.stopping.wait(_LOOK_EVERY):
            endpoint.check()
    finally:
        endpoint.close()
    log.info("stopped, everything accepted was stored", source=source)


def _chosen(config: Config, name: str) -> SourceConfig:
    if name not in config.sources:
        raise ConfigError(
            "config.unknown_source",
            f"there is no source {name!r}",
            where="--source",
            cure=f"known: {', '.join(config.sources)}",
        )
    return config.sources[name]


def _webhook(config: Config, chosen: SourceConfig) -> WebhookSource:
    if chosen.type != "webhook":
        raise ConfigError(
            "ingest.no_endpoint",
            f"a source of the type {chosen.type} takes no requests",
            where="--source",
            cure="name a source of the type webhook",
        )
    # Needs the extra `webhook`, which whoever has no such source need not have installed.
    from connectors.webhook.source import WebhookSource

    made = connector(config.nats, chosen, chosen.accept)
    if not isinstance(made, WebhookSource):
        raise TypeError(f"{type(made).__name__} is registered as webhook")
    return made
