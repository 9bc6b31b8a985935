"""The delivery dataflows: from the streams into a sink, one dataflow a sink.

    input("deliver") → map("transform") → key_on("share") → output("write")     each "…_<sink>"

Between the batches travels what the owner asks about dead letters.

A partition is a share: what one consumer reads of one stream. At its start it claims the share at
the target, which ends every older writer, and reads on behind the offset that the target holds:
rows and offset are stored by the sink in one step, so nothing is lost or applied twice. What the
target refuses is put aside (`dead_letters`). JetStream's acknowledgements follow one epoch later
and serve monitoring only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import bytewax.operators as op
import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from msgspec.structs import replace
from typing_extensions import override

from connectors import registry
from connectors.contracts.sink import Batch, SinkContext
from connectors.errors import RetryableError
from connectors.jetstream.begin import behind_end, behind_time, unfed
from connectors.jetstream.consumer import Consumer, share
from connectors.jetstream.dead_letters import DeadLetters
from connectors.jetstream.offsets import KvOffsets
from connectors.jetstream.requests import Requests
from connectors.jetstream.stream import stream_name
from connectors.letters import Asked
from dataflows import tracing
from dataflows.claiming import claim_share
from dataflows.configuration.places import placing
from dataflows.dead_letters import DeadLetterWriter
from dataflows.gathering import Gathering
from dataflows.letters.answering import Answering
from dataflows.measuring import DeliveryMeter
from dataflows.pacing import Backoff, Pace
from dataflows.pipeline import reprocess_as_of_now, sink_steps
from dataflows.reporting import remembering
from dataflows.stopping import running, stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from bytewax.dataflow import Dataflow

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Claim, Share, Sink
    from dataflows.spec import Config, SinkConfig
    from dataflows.steps import Steps

log = structlog.get_logger()

# What goes through the dataflow.
Item: TypeAlias = Batch | Asked


def add_delivery(
    flow: Dataflow,
    config: Config,
    sink: SinkConfig,
    present: Callable[[], Config] | None = None,
) -> None:
    """Add the delivery into `sink` to a dataflow.

    Args:
        flow: The dataflow.
        config: The configuration.
        sink: Where to.
        present: The configuration as it is when dead letters are replayed; None: `config`.
    """
    context = SinkContext(stopping, KvOffsets(config.nats))
    with placing(f"sinks.{sink.name}", type(sink.spec).model_fields):
        target = registry.sink(sink.type, sink.name, sink.spec, context)
    steps = sink_steps(config, sink)

    items = op.input(f"deliver_{sink.name}", flow, DeliverySource(config, sink, target))
    changed = op.map(f"transform_{sink.name}", items, partial(passing, steps))
    keyed = op.key_on(f"share_{sink.name}", changed, lambda item: item.claim.share.stream)
    op.output(f"write_{sink.name}", keyed, TargetSink(config, sink, target, present))


def passing(steps: Steps, item: Item) -> Item:
    """What goes on to the sink: a batch through its steps, a request as it is."""
    return transform(steps, item) if isinstance(item, Batch) else item


def transform(steps: Steps, batch: Batch) -> Batch:
    """What a sink's own filter and transforms leave of a batch; its offset stays the same."""
    if steps.empty:
        return batch
    changes: list[Delivered] = []
    origins: dict[int, Delivered] = {}
    for change in batch.changes:
        made = steps.delivered(change)
        if made and (len(made) > 1 or made[0] is not change):
            origins[change.sequence] = change
        changes += made
    return Batch(batch.claim, changes, batch.upto, batch.complete, origins)


def parts(sink: SinkConfig) -> dict[str, list[str]]:
    """The partitions of the input and the output step, as recovery must know them."""
    streams = _streams(sink)
    return {f"deliver_{sink.name}": streams, f"write_{sink.name}": streams}


def _streams(sink: SinkConfig) -> list[str]:
    return sorted(stream_name(source) for source in sink.sources)


class DeliverySource(FixedPartitionedSource["Item", "dict[str, int] | None"]):
    """What a sink reads: one share of each stream.

    Resumes behind the offset that the target holds, whatever Bytewax's recovery store says.
    """

    def __init__(self, config: Config, sink: SinkConfig, target: Sink) -> None:
        self._config, self._sink, self._target = config, sink, target

    @override
    def list_parts(self) -> list[str]:
        running()
        return _streams(self._sink)

    @override
    @remembering
    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> _DeliverySourcePartition:
        return _DeliverySourcePartition(self._config, self._sink, self._target, for_part)


class _DeliverySourcePartition(StatefulSourcePartition["Item", "dict[str, int] | None"]):
    def __init__(self, config: Config, sink: SinkConfig, target: Sink, stream: str) -> None:
        self._config, self._nats = config, config.nats
        self._sink, self._target, self._stream = sink, target, stream
        self._consumer: Consumer | None = None
        self._requests: Requests | None = None
        self._emitted = 0
        self._confirmable = 0
        self._gathering = Gathering(sink.options.batch)
        self._pace, self._backoff = Pace(), Backoff(longest=5.0)
        self._meter = DeliveryMeter(sink.name, stream)
        self._meter.opened(is_open=False)

    @override
    @remembering
    def next_batch(self) -> Iterable[Item]:
        if stopping.is_set():
            raise StopIteration
        if self._consumer is None or self._requests is None:
            self._open()
            return ()
        if self._confirmable:
            self._consumer.confirm(self._confirmable)
            self._confirmable = 0
        if not self._gathering.full and (read := self._consumer.read()) is not None:
            self._gathering.add(read)
        items: list[Item] = []
        if (batch := self._gathering.take()) is not None:
            self._emitted = batch.upto
            items.append(batch)
        if (asked := self._requests.next()) is not None:
            items.append(asked)
        if items:
            self._pace.worked()
        else:
            self._pace.rested()
        return items

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
            claim = claim_share(self._config, self._sink, self._target, found)
            whole = self._target.whole_transactions
            self._consumer = Consumer(self._nats, claim, options.accept, whole=whole)
            self._requests = Requests(self._nats, claim)
            empty = unfed(self._nats, found)
        except RetryableError as error:
            if self._backoff.failed():
                log.warning(
                    "delivery cannot start yet, retrying", sink=self._sink.name, reason=str(error)
                )
            return
        self._backoff.succeeded()
        self._meter.opened(is_open=True)
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
        if empty:
            # It may be too early, or nothing may ever be stored there: a mistyped topic, say.
            log.info(
                "nothing is stored under these subjects yet",
                sink=self._sink.name,
                stream=self._stream,
                subjects=" ".join(empty),
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
        self._meter.opened(is_open=False)
        if self._consumer is not None:
            self._consumer.close()
        if self._requests is not None:
            self._requests.close()


class TargetSink(FixedPartitionedSink["Item", None]):
    """A sink: one partition for each share, each written by one writer."""

    def __init__(
        self,
        config: Config,
        sink: SinkConfig,
        target: Sink,
        present: Callable[[], Config] | None = None,
    ) -> None:
        self._config, self._sink, self._target = config, sink, target
        self._present = present or (lambda: config)
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
        return _TargetSinkPartition(self._config, self._sink, self._target, self._present)


class _TargetSinkPartition(StatefulSinkPartition["Item", None]):
    def __init__(
        self, config: Config, sink: SinkConfig, target: Sink, present: Callable[[], Config]
    ) -> None:
        self._config, self._sink, self._target = config, sink, target
        self._present = present
        self._writer: DeadLetterWriter | None = None
        self._meter: DeliveryMeter | None = None
        self._asked = Answering(config.nats)

    @override
    @remembering
    def write_batch(self, values: list[Item]) -> None:
        for item in values:
            if self._writer is None:
                self._writer = self._open(item.claim)
                self._meter = DeliveryMeter(self._sink.name, item.claim.share.stream)
            if isinstance(item, Asked):
                self._asked.add(item)
            else:
                with tracing.deliver(self._sink.name, item):
                    self._writer.write(item)
                if self._meter is not None:
                    self._meter.delivered(item)
            self._asked.carry_out(self._writer)

    def _open(self, claim: Claim) -> DeadLetterWriter:
        config, sink = self._config, self._sink
        return DeadLetterWriter(
            self._target,
            claim,
            DeadLetters(config.nats, config.dead_letters, claim, stopping),
            sink.options.on_refusal,
            partial(reprocess_as_of_now, config, self._present, sink),
        )

    @override
    @remembering
    def snapshot(self) -> None:
        if self._writer is not None:
            self._writer.flush()
            self._asked.carry_out(self._writer)

    @override
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._asked.close()
