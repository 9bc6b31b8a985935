"""`waxtap.yaml`: read, checked, and turned into what the flows are built from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from connectors import registry
from connectors.errors import ConfigError
from connectors.jetstream.spec import DeadLetterSpec, NatsSpec
from connectors.jetstream.topics import filter_subjects
from dataflows.configuration import references
from dataflows.configuration.document import read
from dataflows.configuration.options import SinkOptions, SourceOptions, TopicSpec
from dataflows.configuration.pipeline_spec import PipelineSpec, PythonTransforms
from dataflows.configuration.places import placing
from dataflows.routing import check_topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,38}")
_Model = TypeVar("_Model", bound=BaseModel)
# What pydantic says in Python's terms, in those of a YAML file.
_PROBLEMS = {
    "extra_forbidden": "unknown key",
    "missing": "the key is missing",
    "tuple_type": "a list is expected here",
    "model_type": "a mapping of names is expected here",
}
# What pydantic puts before the message of a validator of ours.
_RAISED = "Value error, "
_SECTIONS = ("nats", "sources", "topics", "pipelines", "python_transforms", "sinks", "dead_letters")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One entry of `sources`.

    Attributes:
        name: Its key.
        type: Which connector.
        spec: The connector's own, validated settings.
        accept: Losses that the owner has accepted, by the tokens that the errors named.
        schema_topic: The topic of changes of its tables' shapes; empty: they are not told.
    """

    name: str
    type: str
    spec: BaseModel
    accept: tuple[str, ...]
    schema_topic: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SinkConfig:
    """One entry of `sinks`.

    Attributes:
        name: Its key.
        type: Which connector.
        spec: The connector's own, validated settings.
        sources: Names of the sources whose streams it reads.
        options: What every sink takes.
    """

    name: str
    type: str
    spec: BaseModel
    sources: tuple[str, ...]
    options: SinkOptions


@dataclass(frozen=True, slots=True, eq=False)
class Config:
    """A whole, valid configuration.

    Attributes:
        nats: The server, and how streams are laid out.
        sources: By name; only the one that runs, where one flow was asked for.
        sinks: Likewise.
        topics: How topics are laid out, as far as that is configured.
        pipelines: By name, in the file's order.
        python_transforms: Patterns of the functions that transforms may call.
    """

    nats: NatsSpec
    sources: dict[str, SourceConfig]
    sinks: dict[str, SinkConfig]
    topics: dict[str, TopicSpec]
    pipelines: dict[str, PipelineSpec]
    python_transforms: tuple[str, ...]
    dead_letters: DeadLetterSpec = field(default_factory=DeadLetterSpec)


def load(path: Path, environment: Mapping[str, str], flow: str = "") -> Config:
    """Read the configuration in `path`.

    Args:
        path: The file.
        environment: Where `${VAR}` is looked up.
        flow: The only flow that will run (`capture/<source>`, `deliver/<sink>`): settings of other
            sources and sinks are not looked at, their secrets need not be there; empty: all.

    Raises:
        ConfigError: The file cannot be read, or says something that it may not; the message names
            the path of each wrong place.
    """
    return parse(read(path), environment, str(path), flow)


def parse(
    tree: object, environment: Mapping[str, str], name: str = "waxtap.yaml", flow: str = ""
) -> Config:
    """Check a document that YAML has read from the file `name`. Raises ConfigError as `load`."""
    whole = _mapping(tree, name)
    # The names of all of them, before secrets of other flows are asked for.
    known = tuple(_mapping(whole.get("sources") or {}, "sources"))
    check_flow(flow, known, _mapping(whole.get("sinks") or {}, "sinks"))
    document = _document(references.resolve(_only(whole, flow), environment), name)
    if "nats" not in document:
        raise ConfigError(
            "config.missing",
            "the section is missing",
            where="nats",
            cure='nats: {url: "nats://127.0.0.1:4222"}',
        )
    sources = _section(document, "sources")
    sinks = _section(document, "sinks")
    if not known:
        raise ConfigError(
            "config.missing",
            "no source is configured",
            where="sources",
            cure='sources: {shop: {type: postgres, dsn: "${SHOP_DSN}"}}',
        )
    return Config(
        nats=validated(NatsSpec, document["nats"], "nats"),
        sources={name: _source(name, entry) for name, entry in sources.items()},
        sinks={name: _sink(name, entry, known) for name, entry in sinks.items()},
        topics={name: _topic(name, entry) for name, entry in _topics(document).items()},
        pipelines={
            name: _pipeline(name, entry, known)
            for name, entry in _section(document, "pipelines").items()
        },
        python_transforms=_python_transforms(document),
        dead_letters=_dead_letters(document),
    )


def part(
    tree: object,
    environment: Mapping[str, str],
    nats: NatsSpec,
    chosen: Collection[tuple[str, str]] | None = None,
) -> Config:
    """Check some entries of a document that need not be whole: it may have no source at all.

    References of other entries are not resolved, and nothing else about them is looked at.

    Args:
        tree: As YAML has read it; a section `nats` is not looked at.
        environment: Where references are looked up.
        nats: What stands in for that section.
        chosen: Section and name of each entry, such as `("sinks", "warehouse")`; None: all.

    Returns:
        A configuration of the chosen entries.

    Raises:
        ConfigError: As `load`.
    """
    document = _document(tree, "waxtap.yaml")

    def entries(section: str, found: Mapping[str, object]) -> dict[str, dict[str, object]]:
        return {
            name: _mapping(
                references.resolve(entry, environment, f"{section}.{name}"), f"{section}.{name}"
            )
            for name, entry in found.items()
            if chosen is None or (section, name) in chosen
        }

    sources = _section(document, "sources")
    known = tuple(sources)
    settings = {
        key: references.resolve(document.get(key), environment, key)
        for key in ("python_transforms", "dead_letters")
    }
    return Config(
        nats=nats,
        sources={name: _source(name, one) for name, one in entries("sources", sources).items()},
        sinks={
            name: _sink(name, one, known)
            for name, one in entries("sinks", _section(document, "sinks")).items()
        },
        topics={
            name: _topic(name, one) for name, one in entries("topics", _topics(document)).items()
        },
        pipelines={
            name: _pipeline(name, one, known)
            for name, one in entries("pipelines", _section(document, "pipelines")).items()
        },
        python_transforms=_python_transforms(settings),
        dead_letters=_dead_letters(settings),
    )


def _document(tree: object, name: str) -> dict[str, object]:
    document = _mapping(tree, name)
    for key in document:
        if key not in _SECTIONS:
            raise ConfigError(
                "config.unknown_key",
                "unknown key",
                where=key,
                cure=f"known: {', '.join(_SECTIONS)}",
            )
    return document


def _python_transforms(document: Mapping[str, object]) -> tuple[str, ...]:
    listed = document.get("python_transforms") or ()
    return validated(PythonTransforms, listed, "python_transforms").root


def _dead_letters(document: Mapping[str, object]) -> DeadLetterSpec:
    return validated(DeadLetterSpec, document.get("dead_letters") or {}, "dead_letters")


def _topics(document: Mapping[str, object]) -> dict[str, object]:
    return _mapping(document.get("topics") or {}, "topics")


def check_flow(flow: str, sources: Iterable[str], sinks: Iterable[str]) -> None:
    """Raise ConfigError unless `flow` is empty or the flow of one of these."""
    flows = {f"capture/{name}" for name in sources} | {f"deliver/{name}" for name in sinks}
    if flow and flow not in flows:
        raise ConfigError(
            "config.unknown_flow",
            f"there is no flow {flow!r}",
            where="WAXTAP_FLOW",
            cure=f"known: {', '.join(sorted(flows))}",
        )


def _only(whole: dict[str, object], flow: str) -> dict[str, object]:
    """A document without the sources and sinks of other flows."""
    if not flow:
        return whole
    kept = dict(whole)
    for section, kind in (("sources", "capture"), ("sinks", "deliver")):
        entries = _mapping(whole.get(section) or {}, section)
        kept[section] = {name: entry for name, entry in entries.items() if flow == f"{kind}/{name}"}
    return kept


def _topic(name: str, entry: object) -> TopicSpec:
    where = f"topics.{name}"
    try:
        check_topic(name)
    except ValueError as error:
        raise ConfigError("config.bad_name", str(error), where=where) from None
    return validated(TopicSpec, entry, where)


def _source(name: str, entry: dict[str, object]) -> SourceConfig:
    where = f"sources.{name}"
    kind, options, own = _split(entry, where, SourceOptions, registry.source_types())
    spec = validated(registry.source_spec(kind), own, where, SourceOptions)
    common = validated(SourceOptions, options, where)
    return SourceConfig(name, kind, spec, common.accept, common.schema_topic)


def _sink(name: str, entry: dict[str, object], known: tuple[str, ...]) -> SinkConfig:
    where = f"sinks.{name}"
    kind, options, own = _split(entry, where, SinkOptions, registry.sink_types())
    spec = validated(registry.sink_spec(kind), own, where, SinkOptions)
    common = validated(SinkOptions, options, where)
    with placing(where, ("topics",)):
        filter_subjects(known[0] if known else "source", common.topics)
    _check_sources(common.sources, known, where)
    return SinkConfig(name, kind, spec, common.sources or known, common)


def _pipeline(name: str, entry: dict[str, object], known: tuple[str, ...]) -> PipelineSpec:
    where = f"pipelines.{name}"
    spec = validated(PipelineSpec, entry, where)
    _check_sources(spec.sources, known, where)
    return spec


def _check_sources(names: tuple[str, ...], known: tuple[str, ...], where: str) -> None:
    for source in names:
        if source not in known:
            raise ConfigError(
                "config.unknown_source",
                f"there is no source {source!r}",
                where=f"{where}.from",
                cure=f"known: {', '.join(known)}",
            )


def _split(
    entry: dict[str, object], where: str, common: type[BaseModel], types: list[str]
) -> tuple[str, dict[str, object], dict[str, object]]:
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in types:
        raise ConfigError(
            "config.unknown_type",
            f"{kind!r} is not a known type",
            where=f"{where}.type",
            cure=f"known: {', '.join(types)}",
        )
    names = _names(common)
    options = {key: value for key, value in entry.items() if key in names}
    own = {key: value for key, value in entry.items() if key not in names}
    return kind, options, own


def _section(document: dict[str, object], section: str) -> dict[str, dict[str, object]]:
    entries = _mapping(document.get(section) or {}, section)
    for name in entries:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                "config.bad_name",
                "a name is 1 to 39 of a-z, 0-9, _ and -",
                where=f"{section}.{name}",
            )
    return {name: _mapping(entry, f"{section}.{name}") for name, entry in entries.items()}


def _mapping(tree: object, where: str) -> dict[str, object]:
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(
            "config.not_a_mapping",
            "a mapping of names is expected here",
            where=where,
        )
    return tree


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def validated(
    model: type[_Model], tree: object, where: str, beside: type[BaseModel] | None = None
) -> _Model:
    """Check a section, or a part of one.

    Args:
        model: What it must be.
        tree: What the file says there, references resolved.
        where: Its config path.
        beside: The further keys that its place in the file may hold.

    Raises:
        ConfigError: `config.invalid`; names the path of each wrong place.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        # Never the input itself: it may hold a secret.
        found = error.errors(include_input=False, include_url=False, include_context=False)
        problems = [
            (
                ".".join([where, *map(str, one["loc"])]),
                _PROBLEMS.get(one["type"], one["msg"].removeprefix(_RAISED)),
            )
            for one in found
        ]
        first, *rest = problems
        more = "".join(f"; {place}: {message}" for place, message in rest)
        unknown = any(one["type"] == "extra_forbidden" and len(one["loc"]) == 1 for one in found)
        names = _names(model) + (_names(beside) if beside else [])
        cure = f"known: {', '.join(names)}" if unknown else ""
        raise ConfigError("config.invalid", first[1] + more, where=first[0], cure=cure) from None
