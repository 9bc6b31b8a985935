"""The capture dataflow: from the sources' logs into their streams.

    input("capture") → map("transform") → key_on("route")
        [→ stateful_batch("remember")] → output("publish")

The step in brackets is there only if a pipeline has stateful steps.

Exactly once: every batch that is stored carries the source's resume state in its last message and
names the sequence it must follow. At its start a partition fences the stream, which ends every
older writer, and the source goes on behind the state found there. A source is told to let go of its
log only when the epoch that read it is complete: Bytewax calls `next_batch` of epoch e+1 only after
the stream's partition has seen every batch of epoch e acknowledged in its `snapshot`.
"""

from __future__ import annotations

from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import bytewax.operators as op
from bytewax.inputs import FixedPartitionedSource
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors.jetstream.patience import Patience
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.stream import stream_name, verify_not_behind
from dataflows import tracing
from dataflows.capture_source import CapturePartition, connector
from dataflows.measuring import CaptureMeter
from dataflows.memory.continuity import InputState, Memory
from dataflows.memory.remember import Remembering, name_of, stateful_pipelines
from dataflows.memory.source import RememberedPartition
from dataflows.pipeline import Captured, Routed, pipelines_of
from dataflows.reporting import remembering
from dataflows.shape_changes import event, statement, told
from dataflows.stopping import running, stopping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bytewax.dataflow import Dataflow

    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.stream import PublisherState, StreamClaim
    from dataflows.memory.options import StatefulSpec
    from dataflows.spec import Config, SourceConfig

# Recovery finds a step's state by these names: a renamed step would lose it silently.
INPUT, REMEMBER, OUTPUT = "capture", "remember", "publish"


def add_capture(flow: Dataflow, config: Config, sources: Mapping[str, SourceConfig]) -> None:
    """Add the capture of `sources` to a dataflow."""
    pipelines = {name: pipelines_of(config, name) for name in sources}
    stateful = _stateful(config, sources)
    steps = {name: name_of(specs) for name, specs in stateful.items()}

    captured = op.input(INPUT, flow, CaptureSource(config.nats, sources, steps))
    routed = op.map("transform", captured, lambda c: pipelines[c.chunk.source].apply(c))
    keyed = op.key_on("route", routed, lambda r: r.claim.stream)
    if stateful:
        keyed = op.stateful_batch(REMEMBER, keyed, partial(Remembering, stateful))
    op.output(OUTPUT, keyed, StreamSink(config.nats, sources))


def parts(config: Config, sources: Iterable[str]) -> dict[str, list[str]]:
    """The partitions and keys of the steps that have a state, as recovery must know them."""
    names = sorted(sources)
    return {
        INPUT: names,
        REMEMBER: [stream_name(name) for name in sorted(_stateful(config, names))],
        OUTPUT: [stream_name(name) for name in names],
    }


def _stateful(config: Config, sources: Iterable[str]) -> dict[str, dict[str, StatefulSpec]]:
    """The stateful pipelines of the sources that have some."""
    found = {name: stateful_pipelines(config, name) for name in sources}
    return {name: specs for name, specs in found.items() if specs}


class CaptureSource(FixedPartitionedSource[Captured, "InputState | None"]):
    """The logs of all sources: one partition each.

    Emits every committed change of a source exactly once into its stream, in commit order, whatever
    ends and restarts in between; needs no recovery store for that. What the stream holds already is
    emitted again, and marked as past, where stateful steps must see it to know what they knew.

    Args:
        nats: Where the streams are.
        sources: By name.
        steps: For each source that has stateful steps, what they are configured as.

    Raises:
        ConfigError: A source's settings are not well-formed; its servers are not asked yet.
    """

    def __init__(
        self,
        nats: NatsSpec,
        sources: Mapping[str, SourceConfig],
        steps: Mapping[str, str] | None = None,
    ) -> None:
        self._nats, self._sources, self._steps = nats, sources, steps or {}
        self._connectors = {
            name: connector(nats, source, source.accept) for name, source in sources.items()
        }

    @override
    def list_parts(self) -> list[str]:
        running()
        return sorted(self._sources)

    @override
    @remembering
    def build_part(
        self, step_id: str, for_part: str, resume_state: InputState | None
    ) -> CapturePartition:
        config, connector = self._sources[for_part], self._connectors[for_part]
        if for_part not in self._steps:
            return CapturePartition(self._nats, config, connector)
        return RememberedPartition(
            self._nats, config, connector, self._steps[for_part], Memory.read(resume_state)
        )


class StreamSink(FixedPartitionedSink[Routed, "PublisherState | None"]):
    """The streams of all sources: one partition each, written by nobody else.

    Stores every batch whole or not at all, exactly once and in order.
    """

    def __init__(self, nats: NatsSpec, sources: Mapping[str, SourceConfig]) -> None:
        self._nats = nats
        self._sources = {stream_name(name): source for name, source in sources.items()}
        self._index = {stream: i for i, stream in enumerate(sorted(self._sources))}

    @override
    def list_parts(self) -> list[str]:
        return sorted(self._sources)

    @override
    def part_fn(self, item_key: str) -> int:
        return self._index[item_key]

    @override
    @remembering
    def build_part(
        self, step_id: str, for_part: str, resume_state: PublisherState | None
    ) -> _StreamSinkPartition:
        return _StreamSinkPartition(self._nats, self._sources[for_part], resume_state)


class _StreamSinkPartition(StatefulSinkPartition[Routed, "PublisherState | None"]):
    def __init__(
        self, nats: NatsSpec, source: SourceConfig, remembered: PublisherState | None
    ) -> None:
        self._nats, self._accept, self._remembered = nats, source.accept, remembered
        self._source, self._schema_topic = source.name, source.schema_topic
        self._meter = CaptureMeter(source.name)
        self._publisher: Publisher | None = None
        self._bare: Routed | None = None

    def _open(self, claim: StreamClaim) -> Publisher:
        """Start writing, unless the stream holds less than recovery remembers."""
        if self._remembered is not None:
            check = partial(verify_not_behind, self._nats, self._remembered, self._accept)
            Patience(claim.stream, Event(), (stopping,)).repeat(check)
        return Publisher(self._nats, claim, stopping)

    @override
    @remembering
    def write_batch(self, values: list[Routed]) -> None:
        for routed in values:
            if self._publisher is None:
                self._publisher = self._open(routed.claim)
            self._follow(self._publisher, routed)
            # A checkpoint by itself costs as much as a change. The next one takes its place, or it
            # goes with the epoch: where nearly nothing is kept, the stream holds nearly nothing.
            self._bare = None if routed.messages else routed
            if self._bare is None:
                with tracing.publish(self._source, routed.claim.stream, routed.messages):
                    self._publisher.publish(
                        routed.messages, routed.checkpoint, routed.resume, routed.sink
                    )
                self._meter.published(routed.messages)

    def _follow(self, publisher: Publisher, routed: Routed) -> None:
        """Count new shapes before their first change is stored; tell them, and DDL, if asked."""
        events = []
        for change in routed.shapes:
            if change.table is None:
                if self._schema_topic:
                    events.append(statement(change))
                continue
            new = publisher.note(change.table, change.position)
            if new is not None and self._schema_topic:
                before = publisher.schema(new.before) if new.before else None
                events.append(event(change, new.version, before))
        if events:
            routed.messages = told(self._source, self._schema_topic, routed.messages, events)

    @override
    @remembering
    def snapshot(self) -> PublisherState | None:
        if self._publisher is None:
            return self._remembered
        if self._bare is not None:
            self._publisher.publish((), self._bare.checkpoint, self._bare.resume)
            self._bare = None
        self._publisher.flush()
        return self._publisher.state()

    @override
    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
