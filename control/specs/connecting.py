"""Connectors of configured sources and sinks, made outside of their flows; nothing is connected."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from connectors import registry
from connectors.contracts.sink import SinkContext
from connectors.jetstream.offsets import KvOffsets
from connectors.jetstream.source_context import source_context
from dataflows.configuration.places import placing

if TYPE_CHECKING:
    from connectors.contracts.sink import Sink
    from connectors.contracts.source import Source
    from connectors.jetstream.spec import NatsSpec
    from dataflows.spec import SinkConfig, SourceConfig


def source_of(config: SourceConfig, nats: NatsSpec) -> Source:
    """A source's connector. Raises ConfigError: its settings are not well-formed."""
    context = source_context(nats, config.name, Event())
    with placing(f"sources.{config.name}", type(config.spec).model_fields):
        return registry.source(config.type, config.name, config.spec, config.accept, context)


def sink_of(config: SinkConfig, nats: NatsSpec) -> Sink:
    """A sink's connector. Raises ConfigError: its settings are not well-formed."""
    context = SinkContext(Event(), KvOffsets(nats))
    with placing(f"sinks.{config.name}", type(config.spec).model_fields):
        return registry.sink(config.type, config.name, config.spec, context)
