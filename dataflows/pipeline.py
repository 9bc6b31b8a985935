"""What happens to a source's changes between its log and its stream.

A pipeline takes a chunk and returns what is to be stored of it, each change with its subject. The
default one keeps every change as it is and routes it by its table. Once the configuration names
pipelines for a source, each change goes through all that take its table, in their order, and only
what they make of it is stored; the messages of one change stand together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from connectors.contracts.changes import Change, Delivered, Failure
from connectors.errors import ConfigError
from dataflows.filters import Filter
from dataflows.one_pipeline import Pipeline
from dataflows.routing import Router
from dataflows.shape_changes import first_of_shapes, rows_of
from dataflows.steps import Steps
from dataflows.transforms.record import Record, key_of_row
from dataflows.transforms.spec import make

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.contracts.changes import TableSchema
    from connectors.contracts.source import Checkpoint, Chunk
    from connectors.jetstream.stream import StreamClaim
    from dataflows.spec import Config, SinkConfig


@dataclass(slots=True)
class Captured:
    """A chunk, and the right to store it in its source's stream.

    Attributes:
        claim: The right to write the stream.
        chunk: The changes.
        lineage: Names the memory of the source's stateful steps; empty where it has none.
        past: The stream stands behind the chunk already: it is there for that memory alone.
    """

    claim: StreamClaim
    chunk: Chunk
    lineage: str = ""
    past: bool = False


@dataclass(slots=True)
class Routed:
    """What is to be stored of a chunk, in log order.

    Attributes:
        claim: The right to write the stream.
        messages: Subject and change.
        checkpoint: The source's state behind the chunk.
        resume: The state of the checkpoint before it, for a cut inside the chunk.
        makers: The pipeline of each message, by name; empty unless one of the source's pipelines
            has steps with a state of their own.
        origins: What each message was made of, where there are makers.
        lineage: As in `Captured`.
        past: As in `Captured`.
        shapes: The changes of the chunk that are the first of their table's shape in it, and those
            that tell of DDL statements.
        sink: The only sink that is given the messages; empty: all are.
    """

    claim: StreamClaim
    messages: list[tuple[str, Change]]
    checkpoint: Checkpoint
    resume: dict[str, str]
    makers: list[str] = field(default_factory=list)
    origins: list[Change] = field(default_factory=list)
    lineage: str = ""
    past: bool = False
    shapes: list[Change] = field(default_factory=list)
    sink: str = ""


class Pipelines(Protocol):
    """Everything that is done to the changes of one source."""

    def apply(self, captured: Captured) -> Routed:
        """Return what is to be stored of a chunk."""
        ...


class DefaultPipeline:
    """The pipeline of a source for which none is configured: keep everything, route by table."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def apply(self, captured: Captured) -> Routed:
        """Return what is to be stored of a chunk."""
        chunk = captured.chunk
        tellable = first_of_shapes(chunk.changes)
        return Routed(
            captured.claim,
            self._router.route(rows_of(chunk.changes, tellable)),
            chunk.checkpoint,
            chunk.resume,
            shapes=tellable,
            sink=chunk.sink,
        )


class ConfiguredPipelines:
    """The configured pipelines of one source, each change through all that take its table.

    The mark of a transaction's end goes to the last message that is left of it; if nothing of its
    end is left in the chunk, there is none.

    Args:
        pipelines: In their order.
    """

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self._pipelines = pipelines
        self._taking: dict[str, list[Pipeline]] = {}
        self._stateful = any(pipeline.spec.stateful for pipeline in pipelines)

    def apply(self, captured: Captured) -> Routed:
        """Return what is to be stored of a chunk."""
        chunk = captured.chunk
        tellable = first_of_shapes(chunk.changes)
        messages: list[tuple[str, Change]] = []
        makers: list[str] = []
        origins: list[Change] = []
        for change in rows_of(chunk.changes, tellable):
            before = len(messages)
            for pipeline in self._of(change.table):
                messages += pipeline.apply(change)
                if self._stateful:
                    made = len(messages) - len(makers)
                    makers += [pipeline.name] * made
                    origins += [change] * made
            if change.last and len(messages) != before + 1:
                _mark_last(messages, before, change.transaction)
        return Routed(
            captured.claim,
            messages,
            chunk.checkpoint,
            chunk.resume,
            makers,
            origins,
            captured.lineage,
            captured.past,
            tellable,
            chunk.sink,
        )

    def _of(self, table: TableSchema | None) -> list[Pipeline]:
        version = table.hash if table else ""
        found = self._taking.get(version)
        if found is None:
            found = [pipeline for pipeline in self._pipelines if pipeline.takes(table)]
            self._taking[version] = found
        return found


def _mark_last(messages: list[tuple[str, Change]], start: int, transaction: str) -> None:
    """Let the last message of a transaction, and no other, carry the mark of its end."""
    for index in range(start, len(messages) - 1):
        subject, change = messages[index]
        messages[index] = subject, change._replace(last=False)
    if messages and transaction and messages[-1][1].transaction == transaction:
        subject, change = messages[-1]
        messages[-1] = subject, change._replace(last=True)


def pipelines_of(config: Config, source: str) -> Pipelines:
    """What is done to the changes of a source.

    Raises:
        ConfigError: A Python function may not or cannot be imported.
    """
    partitions = {name: topic.partitions for name, topic in config.topics.items()}
    configured = [
        pipeline_named(config, name, source)
        for name, spec in config.pipelines.items()
        if source in (spec.sources or config.sources)
    ]
    return (
        ConfiguredPipelines(configured)
        if configured
        else DefaultPipeline(Router(source, partitions))
    )


def sink_steps(config: Config, sink: SinkConfig) -> Steps:
    """What a sink does to its changes. Raises ConfigError as `pipelines_of`."""
    options, name = sink.options, f"sinks.{sink.name}"
    kept = Filter(options.filter) if options.filter is not None else None
    transforms = make(options.transform, config.python_transforms, f"{name}.transform")
    return Steps(name, kept, transforms, options.on_error)


def reprocess(config: Config, sink: SinkConfig, letter: Delivered) -> list[Delivered]:
    """What a sink is to be given of a stored change, as the configuration says it now.

    Runs the pipeline again that had failed on it, and then the sink's own steps.

    Args:
        config: The whole configuration.
        sink: Whose dead letter it is.
        letter: The message as it lies in the stream.

    Returns:
        What to deliver, of the letter's sequence: nothing where it is filtered out now. One that
        fails again is the letter itself, with the new reason in `failed`.
    """
    changes = [letter]
    if letter.failed:
        failure = Failure.decode(letter.failed)
        source = letter.subject.split(".")[1]
        if failure.pipeline not in config.pipelines:
            gone = Failure(
                failure.pipeline, "pipeline.unknown", "there is no such pipeline any more"
            )
            return [letter._replace(failed=gone.encoded)]
        original = letter._replace(failed="", key=_key_of_rows(letter))
        pipeline = pipeline_named(config, failure.pipeline, source)
        changes = [
            change if change.failed else change._replace(subject=subject)
            for subject, change in pipeline.apply(original)
        ]
    steps = _sink_steps(config, sink)
    return [made for change in changes for made in steps.delivered(change)]


def reprocess_as_of_now(
    config: Config, present: Callable[[], Config], sink: SinkConfig, letter: Delivered
) -> list[Delivered]:
    """As `reprocess`, where a pipeline that had failed is taken from the present configuration.

    One that is not valid at the moment makes the letter fail again, and says why.
    """
    if not letter.failed:
        return reprocess(config, sink, letter)
    try:
        return reprocess(present(), sink, letter)
    except ConfigError as error:
        failure = Failure(
            Failure.decode(letter.failed).pipeline, error.code, f"{error.where}: {error.message}"
        )
        return [letter._replace(failed=failure.encoded)]


def _key_of_rows(change: Delivered) -> str | None:
    """The key that a change came with: one that failed carries the key it was to have."""
    table = change.table
    if table is None or change.key is None:
        return change.key
    record = Record(change)
    record.open()
    row = record.before if record.after is None else record.after
    if row is None or any(name not in row for name in table.key):
        return change.key
    return key_of_row({name: row[name] for name in table.key})


@lru_cache(maxsize=64)
def pipeline_named(config: Config, name: str, source: str) -> Pipeline:
    """One pipeline of the configuration, for the changes of a source.

    Raises:
        ConfigError: There is none of that name, or as `pipelines_of`.
    """
    if name not in config.pipelines:
        raise ConfigError(
            "config.unknown_pipeline",
            f"there is no pipeline {name!r}",
            where="pipelines",
            cure=f"known: {', '.join(config.pipelines) or 'none'}",
        )
    partitions = {topic: spec.partitions for topic, spec in config.topics.items()}
    return Pipeline(name, config.pipelines[name], source, partitions, config.python_transforms)


_sink_steps = lru_cache(maxsize=64)(sink_steps)
