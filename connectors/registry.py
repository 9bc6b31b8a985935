"""Every connector, one line each; a line names modules that are imported only when used."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pydantic import BaseModel

    from connectors.contracts.sink import Sink, SinkContext
    from connectors.contracts.source import Source, SourceContext


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a connector's specification and its class live (`module:name`)."""

    spec: str
    connector: str


_SOURCES = {
    "mariadb": _Entry(
        "connectors.mysql.spec:MariadbSourceSpec", "connectors.mysql.source:MysqlSource"
    ),
    "mysql": _Entry("connectors.mysql.spec:MysqlSourceSpec", "connectors.mysql.source:MysqlSource"),
    "postgres": _Entry(
        "connectors.postgres.spec:SourceSpec", "connectors.postgres.source:PostgresSource"
    ),
    "rest": _Entry("connectors.rest.spec:RestSourceSpec", "connectors.rest.source:RestSource"),
    "webhook": _Entry(
        "connectors.webhook.source_spec:SourceSpec", "connectors.webhook.source:WebhookSource"
    ),
}
_SINKS = {
    "elasticsearch": _Entry(
        "connectors.elasticsearch.spec:SinkSpec", "connectors.elasticsearch.sink:ElasticsearchSink"
    ),
    "postgres": _Entry(
        "connectors.postgres.spec:SinkSpec", "connectors.postgres.sink:PostgresSink"
    ),
    "webhook": _Entry("connectors.webhook.spec:SinkSpec", "connectors.webhook.sink:WebhookSink"),
}


# Sources that carry out `contracts.backfills`.
BACKFILLED = frozenset({"postgres", "mysql", "mariadb"})


def source_types() -> list[str]:
    """The values of `type:` that a source may have."""
    return sorted(_SOURCES)


def sink_types() -> list[str]:
    """The values of `type:` that a sink may have."""
    return sorted(_SINKS)


def source_spec(kind: str) -> type[BaseModel]:
    """The model of a source's configuration. Raises KeyError for an unknown type."""
    return cast("type[BaseModel]", _load(_SOURCES[kind].spec))


def sink_spec(kind: str) -> type[BaseModel]:
    """The model of a sink's configuration. Raises KeyError for an unknown type."""
    return cast("type[BaseModel]", _load(_SINKS[kind].spec))


def source(
    kind: str, name: str, spec: BaseModel, accept: Collection[str], context: SourceContext
) -> Source:
    """Make a source from its validated configuration; nothing is connected yet.

    `accept` holds the losses that the owner has accepted, by the tokens that errors named.
    """
    make = cast(
        "Callable[[str, BaseModel, Collection[str], SourceContext], Source]",
        _load(_SOURCES[kind].connector),
    )
    return make(name, spec, accept, context)


def sink(kind: str, name: str, spec: BaseModel, context: SinkContext) -> Sink:
    """Make a sink from its validated configuration; nothing is connected yet."""
    make = cast("Callable[[str, BaseModel, SinkContext], Sink]", _load(_SINKS[kind].connector))
    return make(name, spec, context)


def _load(reference: str) -> object:
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("connectors"):
            raise
        extra = module.split(".")[1]
        raise ConfigError(
            "config.extra_missing",
            f"the package {error.name} is not installed, which connectors of this type need",
            where="type",
            cure=f"pip install 'waxtap[{extra}]'",
        ) from error
