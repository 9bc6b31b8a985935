"""The delivery dataflows: from the streams into a sink, one dataflow a sink.

    input("deliver") → map("transform") → key_on("share") → output("write")     each "…_<sink>"

A partition is a share: what one consumer reads of one stream. At its start it claims the share at
the target, which ends every older writer, and reads on behind the offset that the target holds:
rows and offset are stored by the sink in one step, so nothing is lost or applied twice. JetStream's
acknowledgements follow one epoch later and serve monitoring only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import bytewax.operators as op
import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from msgspec.structs import replace
from typing_extensions import override

from connectors import registry
from connectors.contracts import Batch, SinkContext
from connectors.errors import RetryableError
from connectors.jetstream.begin import behind_end, behind_time
from connectors.jetstream.consumer import Consumer, share
from connectors.jetstream.expiry import shortened
from connectors.jetstream.offsets import KvOffsets
from connectors.jetstream.stream import stream_name
from dataflows.gathering import Gathering
from dataflows.pacing import Backoff, Pace
from dataflows.pipeline import sink_steps
from dataflows.places import placing
from dataflows.reporting import remembering
from dataflows.stopping import running, stopping

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from bytewax.dataflow import Dataflow

    from connectors.contracts import Share, Sink, SinkWriter
    from connectors.jetstream.spec import NatsSpec
    from dataflows.spec import Config, SinkConfig
    from dataflows.steps import Steps

log = structlog.get_logger()


def add_delivery(flow: Dataflow, config: Config, sink: SinkConfig) -> None:
    """Add the delivery into `sink` to a dataflow."""
    context = SinkContext(stopping, KvOffsets(config.nats))
    target = registry.sink(sink.type, sink.name, sink.spec, context)
    steps = sink_steps(config, sink)

    batches = op.input(f"deliver_{sink.name}", flow, DeliverySource(config.nats, sink, target))
    changed = op.map(f"transform_{sink.name}", batches, partial(transform, steps))
    keyed = op.key_on(f"share_{sink.name}", changed, lambda batch: batch.claim.share.stream)
    op.output(f"write_{sink.name}", keyed, TargetSink(sink, target))


def transform(steps: Steps, batch: Batch) -> Batch:
    """What a sink's own filter and transforms leave of a batch; its offset stays the same."""
    if steps.empty:
        return batch
    changes = [made for change in batch.changes for made in steps.delivered(change)]
    return Batch(batch.claim, changes, batch.upto, batch.complete)


def parts(sink: SinkConfig) -> dict[str, list[str]]:
    """The partitions of the input and the output step, as recovery must know them."""
    streams = _streams(sink)
    return {f"deliver_{sink.name}": streams, f"write_{sink.name}": streams}


def _streams(sink: SinkConfig) -> list[str]:
    return sorted(stream_name(source) for source in sink.sources)


class DeliverySource(FixedPartitionedSource[Batch, "dict[str, int] | None"]):
    """What a sink reads: one share of each stream.

    Resumes behind the offset that the target holds, whatever Bytewax's recovery store says.
    """

    def __init__(self, nats: NatsSpec, sink: SinkConfig, target: Sink) -> None:
        self._nats, self._sink, self._target = nats, sink, target

    @override
    def list_parts(self) -> list[str]:
        running()
        return _streams(self._sink)

    @override
    @remembering
    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> _DeliverySourcePartition:
        return _DeliverySourcePartition(self._nats, self._sink, self._target, for_part)


class _DeliverySourcePartition(StatefulSourcePartition[Batch, "dict[str, int] | None"]):
    def __init__(self, nats: NatsSpec, sink: SinkConfig, target: Sink, stream: str) -> None:
        self._nats, self._sink, self._target, self._stream = nats, sink, target, stream
        self._consumer: Consumer | None = None
        self._emitted = 0
        self._confirmable = 0
        self._gathering = Gathering(sink.options.batch)
        self._pace, self._backoff = Pace(), Backoff(longest=5.0)

    @override
    @remembering
    def next_batch(self) -> Iterable[Batch]:
        if stopping.is_set():
            raise StopIteration
        if self._consumer is None:
            self._open()
            return ()
        if self._confirmable:
            self._consumer.confirm(self._confirmable)
            self._confirmable = 0
        if not self._gathering.full and (read := self._consumer.read()) is not None:
            self._gathering.add(read)
        batch = self._gathering.take()
        if batch is None:
            self._pace.rested()
            return ()
        self._pace.worked()
        self._emitted = batch.upto
        return (batch,)

    def _open(self) -> None:
        """Claim the share at the target, then read on behind its offset."""
        self._pace.rested()
        if not self._backoff.due():
            return
        options = self._sink.options
        try:
            found = share(self._nats, self._sink.name, self._stream, options.topics)
            if found is None:
                if self._backoff.failed():
                    log.info("waiting for the stream", sink=self._sink.name, stream=self._stream)
                return
            found = replace(found, begin=self._begin(found))
            with placing(f"sinks.{self._sink.name}", type(self._sink.spec).model_fields):
                claim = self._target.claim(found)
            truncated = shortened(self._nats, claim, options.accept)
            if truncated is not None:
                claim = self._target.claim(truncated)
            whole = self._target.whole_transactions
            self._consumer = Consumer(self._nats, claim, options.accept, whole=whole)
        except RetryableError as error:
            if self._backoff.failed():
                log.warning(
                    "delivery cannot start yet, retrying", sink=self._sink.name, reason=str(error)
                )
            return
        self._backoff.succeeded()
        if claim.forgotten:
            log.warning(
                "the stream is a new one, its earlier offset does not count",
                sink=self._sink.name,
                stream=self._stream,
                offset=claim.forgotten,
            )
        log.info(
            "delivering",
            sink=self._sink.name,
            stream=self._stream,
            epoch=claim.epoch,
            after=min(claim.offsets.values()),
        )

    def _begin(self, found: Share) -> int:
        """Behind which sequence a sink begins that has nothing yet."""
        start = self._sink.options.start
        if start.end:
            return behind_end(self._nats, found)
        if start.time is not None:
            return behind_time(self._nats, found, start.time)
        return start.sequence - 1 if start.sequence else 0

    @override
    def next_awake(self) -> datetime | None:
        return self._pace.next_awake()

    @override
    @remembering
    def snapshot(self) -> dict[str, int] | None:
        # The target's own offset is the truth; this copy is for whoever looks into the store.
        self._confirmable = self._emitted
        return {"v": 1, "upto": self._emitted} if self._emitted else None

    @override
    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()


class TargetSink(FixedPartitionedSink[Batch, None]):
    """A sink: one partition for each share, each written by one writer."""

    def __init__(self, sink: SinkConfig, target: Sink) -> None:
        self._target = target
        self._streams = _streams(sink)

    @override
    def list_parts(self) -> list[str]:
        return self._streams

    @override
    def part_fn(self, item_key: str) -> int:
        return self._streams.index(item_key)

    @override
    @remembering
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _TargetSinkPartition:
        return _TargetSinkPartition(self._target)


class _TargetSinkPartition(StatefulSinkPartition[Batch, None]):
    def __init__(self, target: Sink) -> None:
        self._target = target
        self._writer: SinkWriter | None = None

    @override
    @remembering
    def write_batch(self, values: list[Batch]) -> None:
        for batch in values:
            if self._writer is None:
                self._writer = self._target.open(batch.claim)
            self._writer.write(batch)

    @override
    @remembering
    def snapshot(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    @override
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
