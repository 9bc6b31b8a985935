"""Whether a configuration may be stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors import registry
from control.specs.connecting import sink_of, source_of
from control.specs.document import SECTIONS
from control.specs.kinds import entries
from control.specs.secrets import check_secrets
from dataflows.configuration.options import SinkOptions
from dataflows.configuration.pipeline_spec import PipelineSpec
from dataflows.spec import part

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic import BaseModel

    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Tree
    from dataflows.spec import Config


def check(
    tree: Tree,
    environment: Mapping[str, str],
    nats: NatsSpec,
    chosen: Collection[tuple[str, str]] | None = None,
) -> Config:
    """Check what a configuration says, as `dataflows.spec` does, and that it holds no secret.

    Unlike a file that flows are run from, it may be empty.

    Args:
        tree: The sections of `waxtap.yaml`, references unresolved.
        environment: Where references are looked up: that of this service, and of its flows.
        nats: Where the flows' streams are.
        chosen: Section and name of the entries to check; None: all. What is wrong with another
            entry must not keep anybody from mending this one.

    Returns:
        The chosen entries.

    Raises:
        ConfigError: `where` is the config path.
    """
    for section in SECTIONS:
        found = tree.get(section)
        for name, entry in found.items() if isinstance(found, dict) else ():
            if chosen is None or (section, name) in chosen:
                for model in _models(section, entry):
                    check_secrets(model, entry, f"{section}.{name}")
    config = part(tree, environment, nats, chosen)
    # What only the connectors know: connection strings, patterns of tables.
    for source in config.sources.values():
        source_of(source, nats)
    for sink in config.sinks.values():
        sink_of(sink, nats)
    return config


def readers(tree: Tree, source: str) -> list[str]:
    """The resources that name a source: `sinks/warehouse`."""
    return [
        f"{section}/{name}"
        for section in ("pipelines", "sinks")
        for name, entry in entries(tree, section).items()
        if isinstance(entry, dict) and source in (entry.get("from") or ())
    ]


def _models(section: str, entry: object) -> list[type[BaseModel]]:
    """Whose fields an entry holds."""
    kind = entry.get("type") if isinstance(entry, dict) else None
    if section == "sources" and kind in registry.source_types():
        return [registry.source_spec(str(kind))]
    if section == "sinks":
        known = [registry.sink_spec(str(kind))] if kind in registry.sink_types() else []
        return [*known, SinkOptions]
    return [PipelineSpec] if section == "pipelines" else []
