"""The capture dataflow: from the sources' logs into their streams.

    input("capture") → map("transform") → key_on("route") → output("publish")

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
import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors import registry
from connectors.contracts import Chunk
from connectors.errors import RetryableError
from connectors.jetstream.patience import Patience
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.stream import open_stream, stream_name, verify_not_behind
from dataflows.pacing import Backoff, Pace
from dataflows.pipeline import Captured, Routed, pipelines_of
from dataflows.places import placing
from dataflows.reporting import remembering
from dataflows.stopping import running, stopping

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from bytewax.dataflow import Dataflow

    from connectors.contracts import Checkpoint, Source, SourceReader
    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.stream import PublisherState, StreamClaim
    from dataflows.spec import Config, SourceConfig

log = structlog.get_logger()

# Recovery finds a step's state by these names: a renamed step would lose it silently.
INPUT, OUTPUT = "capture", "publish"


def add_capture(flow: Dataflow, config: Config, sources: Mapping[str, SourceConfig]) -> None:
    """Add the capture of `sources` to a dataflow."""
    pipelines = {name: pipelines_of(config, name) for name in sources}

    captured = op.input(INPUT, flow, CaptureSource(config.nats, sources))
    routed = op.map("transform", captured, lambda c: pipelines[c.chunk.source].apply(c))
    keyed = op.key_on("route", routed, lambda r: r.claim.stream)
    op.output(OUTPUT, keyed, StreamSink(config.nats, sources))


def parts(sources: Iterable[str]) -> dict[str, list[str]]:
    """The partitions of the input and the output step, as recovery must know them."""
    names = sorted(sources)
    return {INPUT: names, OUTPUT: [stream_name(name) for name in names]}


class CaptureSource(FixedPartitionedSource[Captured, "dict[str, str] | None"]):
    """The logs of all sources: one partition each.

    Emits every committed change of a source exactly once into its stream, in commit order, whatever
    ends and restarts in between; needs no recovery store for that.

    Raises:
        ConfigError: A source's settings are not well-formed; its servers are not asked yet.
    """

    def __init__(self, nats: NatsSpec, sources: Mapping[str, SourceConfig]) -> None:
        self._nats, self._sources = nats, sources
        self._connectors = {name: _connector(source) for name, source in sources.items()}

    @override
    def list_parts(self) -> list[str]:
        running()
        return sorted(self._sources)

    @override
    @remembering
    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, str] | None
    ) -> _CaptureSourcePartition:
        return _CaptureSourcePartition(
            self._nats, self._sources[for_part], self._connectors[for_part]
        )


def _connector(source: SourceConfig) -> Source:
    with placing(f"sources.{source.name}", type(source.spec).model_fields):
        return registry.source(source.type, source.name, source.spec, source.accept)


class _CaptureSourcePartition(StatefulSourcePartition[Captured, "dict[str, str] | None"]):
    def __init__(self, nats: NatsSpec, config: SourceConfig, source: Source) -> None:
        self._nats, self._config, self._source = nats, config, source
        self._claim: StreamClaim | None = None
        self._reader: SourceReader | None = None
        self._emitted: Checkpoint | None = None
        self._confirmable: Checkpoint | None = None
        self._pace, self._backoff = Pace(), Backoff()

    @override
    @remembering
    def next_batch(self) -> Iterable[Captured]:
        if stopping.is_set():
            raise StopIteration
        if self._reader is None or self._claim is None:
            return self._open()
        if self._confirmable is not None:
            self._reader.confirm(self._confirmable)
            self._confirmable = None
        chunk = self._reader.read()
        if chunk is None:
            self._pace.rested()
            return ()
        self._pace.worked()
        self._emitted = chunk.checkpoint
        return (Captured(self._claim, chunk),)

    def _open(self) -> Iterable[Captured]:
        """Fence the stream, then start the source behind the state found in it.

        Where messages expire, that state is handed on once more: it makes the writer, which renews
        the stream's last checkpoint in time even if the source never has anything to tell.
        """
        self._pace.rested()
        if not self._backoff.due():
            return ()
        try:
            claim, checkpoint = open_stream(self._nats, self._config.name, self._config.accept)
            with placing(f"sources.{self._config.name}", type(self._config.spec).model_fields):
                self._reader = self._source.open(checkpoint)
        except RetryableError as error:
            if self._backoff.failed():
                log.warning(
                    "capture cannot start yet, retrying",
                    source=self._config.name,
                    reason=str(error),
                )
            return ()
        self._backoff.succeeded()
        self._claim = claim
        log.info(
            "capturing",
            source=self._config.name,
            stream=claim.stream,
            after=(checkpoint and checkpoint.position) or "the beginning",
        )
        if checkpoint is None or not claim.checkpoint_every:
            return ()
        return (Captured(claim, Chunk(self._config.name, [], checkpoint, checkpoint.state)),)

    @override
    def next_awake(self) -> datetime | None:
        return self._pace.next_awake()

    @override
    @remembering
    def snapshot(self) -> dict[str, str] | None:
        # The stream's own checkpoint is the truth; this copy is for whoever looks into the store.
        self._confirmable = self._emitted
        return {"v": "1", "position": self._emitted.position} if self._emitted else None

    @override
    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


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
        return _StreamSinkPartition(self._nats, self._sources[for_part].accept, resume_state)


class _StreamSinkPartition(StatefulSinkPartition[Routed, "PublisherState | None"]):
    def __init__(
        self, nats: NatsSpec, accept: Collection[str], remembered: PublisherState | None
    ) -> None:
        self._nats, self._accept, self._remembered = nats, accept, remembered
        self._publisher: Publisher | None = None

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
            self._publisher.publish(routed.messages, routed.checkpoint, routed.resume)

    @override
    @remembering
    def snapshot(self) -> PublisherState | None:
        if self._publisher is None:
            return self._remembered
        self._publisher.flush()
        return self._publisher.state()

    @override
    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
