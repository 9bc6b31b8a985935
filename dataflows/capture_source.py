"""One partition of the capture dataflow's input: a source's log, behind what its stream holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog
from bytewax.inputs import StatefulSourcePartition
from typing_extensions import override

from connectors import registry
from connectors.contracts.changes import DDL
from connectors.contracts.source import Chunk, Finite, Guarded
from connectors.errors import RetryableError
from connectors.jetstream.source_context import source_context
from connectors.jetstream.stream import open_stream
from connectors.log_watch import LogWatch
from dataflows import ending
from dataflows.configuration.places import placing
from dataflows.measuring import CaptureMeter
from dataflows.pacing import Backoff, Pace
from dataflows.pipeline import Captured
from dataflows.reporting import remembering
from dataflows.stopping import stopping

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from connectors.contracts.source import Checkpoint, Source, SourceReader
    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.stream import StreamClaim
    from dataflows.memory.continuity import InputState
    from dataflows.spec import SourceConfig

log = structlog.get_logger()


def connector(
    nats: NatsSpec,
    source: SourceConfig,
    accept: Collection[str],
    past: Checkpoint | None = None,
) -> Source:
    """The connector of a source, for which the losses in `accept` are accepted.

    Args:
        nats: Where its stream is.
        source: Its configuration.
        accept: Tokens that errors named.
        past: As in `SourceContext`.

    Raises:
        ConfigError: Its settings are not well-formed; its server is not asked yet.
    """
    told = bool(source.schema_topic)
    context = source_context(nats, source.name, stopping, past, ddl=told)
    with placing(f"sources.{source.name}", type(source.spec).model_fields):
        return registry.source(source.type, source.name, source.spec, accept, context)


class CapturePartition(StatefulSourcePartition[Captured, "InputState | None"]):
    """The log of one source.

    Args:
        nats: Where its stream is.
        config: The source's.
        source: Its connector.
    """

    def __init__(self, nats: NatsSpec, config: SourceConfig, source: Source) -> None:
        self._nats, self._config, self._source = nats, config, source
        self._claim: StreamClaim | None = None
        self._reader: SourceReader | None = None
        self._emitted: Checkpoint | None = None
        self._confirmable: Checkpoint | None = None
        self._pace, self._backoff = Pace(), Backoff()
        self._meter = CaptureMeter(config.name)
        self._meter.opened(is_open=False)
        self._watch = LogWatch(config.name, source) if isinstance(source, Guarded) else None

    @override
    @remembering
    def next_batch(self) -> Iterable[Captured]:
        if stopping.is_set():
            raise StopIteration
        if self._watch is not None:
            self._watch.check()
        if self._reader is None or self._claim is None:
            return self._open()
        if self._confirmable is not None:
            self._reader.confirm(self._confirmable)
            self._confirmable = None
        chunk = self._reader.read()
        if chunk is None:
            if isinstance(self._reader, Finite) and self._reader.ended:
                ending.note(os.environ)
                raise StopIteration
            self._pace.rested()
            return ()
        self._pace.worked()
        self._emitted = chunk.checkpoint
        self._meter.read(self._count(chunk))
        return (self._captured(self._claim, chunk),)

    def _count(self, chunk: Chunk) -> int:
        """How many changes were read; statements are none."""
        if not self._config.schema_topic:
            return len(chunk.changes)
        return len([change for change in chunk.changes if change.op != DDL])

    def _captured(self, claim: StreamClaim, chunk: Chunk) -> Captured:
        return Captured(claim, chunk)

    def _open(self) -> Iterable[Captured]:
        """Fence the stream, then start the source behind the state found in it.

        Where messages expire, that state is handed on once more: it makes the writer, which renews
        the stream's last checkpoint in time even if the source never has anything to tell.
        """
        self._pace.rested()
        if not self._backoff.due():
            return ()
        try:
            claim, checkpoint = self._own()
            with placing(f"sources.{self._config.name}", type(self._config.spec).model_fields):
                reader = self._start(claim, checkpoint)
        except RetryableError as error:
            if self._backoff.failed():
                log.warning(
                    "capture cannot start yet, retrying",
                    source=self._config.name,
                    reason=str(error),
                )
            return ()
        self._backoff.succeeded()
        if reader is None:
            return ()
        self._claim, self._reader = claim, reader
        self._meter.opened(is_open=True)
        log.info(
            "capturing",
            source=self._config.name,
            stream=claim.stream,
            after=(checkpoint and checkpoint.position) or "the beginning",
        )
        if checkpoint is None or not claim.checkpoint_every:
            return ()
        chunk = Chunk(self._config.name, [], checkpoint, checkpoint.state)
        return (self._captured(claim, chunk),)

    def _own(self) -> tuple[StreamClaim, Checkpoint | None]:
        """Become the only writer of the stream."""
        return open_stream(self._nats, self._config.name, self._config.accept)

    def _start(self, claim: StreamClaim, checkpoint: Checkpoint | None) -> SourceReader | None:
        """Start the source behind a checkpoint; None: something else comes first."""
        return self._source.open(checkpoint)

    @override
    def next_awake(self) -> datetime | None:
        return self._pace.next_awake()

    @override
    @remembering
    def snapshot(self) -> InputState | None:
        # The stream's own checkpoint is the truth; this copy is for whoever looks into the store.
        self._confirmable = self._emitted
        return {"v": "1", "position": self._emitted.position} if self._emitted else None

    @override
    def close(self) -> None:
        self._meter.opened(is_open=False)
        if self._watch is not None:
            self._watch.stop()
        if self._reader is not None:
            self._reader.close()
