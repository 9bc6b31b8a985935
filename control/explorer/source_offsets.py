"""How far sources are: what their streams hold, and where their servers are."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from connectors import registry
from connectors.contracts.source import Guarded, Observable
from connectors.errors import WaxtapError
from connectors.jetstream.examine import settled
from connectors.jetstream.frames import read_checkpoint
from connectors.jetstream.source_context import source_context
from connectors.jetstream.stream import stream_name
from control.explorer.timestamps import to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from connectors.contracts.source import Checkpoint, LogHealth, Observation, Source
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets
    from connectors.jetstream.spec import NatsSpec
    from control.explorer.streams import Stream
    from dataflows.spec import SourceConfig

log = structlog.get_logger()

# How long a request waits for servers.
_PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class SourceOffset:
    """How far a source is.

    Attributes:
        source: The source's name.
        stream: Its stream; empty: there is none yet.
        position: Of the last change that is stored.
        checkpoint_time: When the last checkpoint was stored, in nanoseconds since 1970; 0: never.
        observation: Where its server is; None: it cannot be asked now.
    """

    source: str
    stream: str
    position: str
    checkpoint_time: int
    observation: Observation | None

    @property
    def lag_time(self) -> int:
        """How long ago the last checkpoint was, in nanoseconds, while the server is further."""
        seen = self.observation
        if seen is None or not seen.lag or not self.checkpoint_time:
            return 0
        return max(time.time_ns() - self.checkpoint_time, 0)


class Observer:
    """Asks sources' servers where they are.

    Args:
        nats: Where the streams are.
        executor: Where servers are asked, several at once.
    """

    def __init__(self, nats: NatsSpec, executor: Executor) -> None:
        self._nats, self._executor = nats, executor
        self._stop = threading.Event()

    def of(
        self,
        connection: Connection,
        names: Sequence[str],
        reads: DirectGets,
        streams: Mapping[str, Stream],
        configured: Mapping[str, SourceConfig],
    ) -> list[SourceOffset]:
        """How far these sources are.

        Args:
            connection: To NATS.
            names: Which.
            reads: Reads stored messages.
            streams: By name.
            configured: By name, those whose servers can be asked.

        Raises:
            RetryableError: NATS does not answer.
        """
        stored = [_stored(connection, name, reads, streams) for name in names]
        asked = [
            self._executor.submit(self._observe, name, checkpoint, configured.get(name))
            for name, (_, _, checkpoint) in zip(names, stored, strict=True)
        ]
        deadline = time.monotonic() + _PATIENCE
        found: list[SourceOffset] = []
        for name, (stream, moment, checkpoint), future in zip(names, stored, asked, strict=True):
            observation = None
            try:
                observation = future.result(max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                log.debug("a server does not answer in time", source=name)
            position = checkpoint.position if checkpoint else ""
            found.append(SourceOffset(name, stream, position, moment, observation))
        return found

    def guard(self, found: SourceConfig) -> LogHealth | None:
        """As `Guarded.guard`; None also for a source that cannot do that."""
        source = self._source(found)
        return source.guard() if isinstance(source, Guarded) else None

    def _source(self, found: SourceConfig) -> Source:
        context = source_context(self._nats, found.name, self._stop)
        return registry.source(found.type, found.name, found.spec, found.accept, context)

    def _observe(
        self, name: str, stored: Checkpoint | None, found: SourceConfig | None
    ) -> Observation | None:
        if found is None:
            return None
        try:
            source = self._source(found)
            # A position that is empty precedes everything.
            known = stored if stored is not None and stored.state else None
            return source.observe(known) if isinstance(source, Observable) else None
        except WaxtapError as error:
            log.debug("a server cannot be asked", source=name, reason=str(error))
            return None


def _stored(
    connection: Connection, name: str, reads: DirectGets, streams: Mapping[str, Stream]
) -> tuple[str, int, Checkpoint | None]:
    """A source's stream, and the time and the content of its last checkpoint."""
    stream = stream_name(name)
    if stream not in streams:
        return "", 0, None
    _, message = settled(connection, stream)
    last = read_checkpoint(message.hdrs, stream) if message else None
    if message is None or last is None:
        return stream, 0, None
    found = reads.get(stream, {"seq": message.seq, "batch": 1})
    moment = to_nanoseconds(found[0].time) if found else 0
    return stream, moment, last.checkpoint
