"""The input of the capture dataflow for a source with stateful steps.

`continuity` tells what it is about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from typing_extensions import override

from connectors.errors import GapError
from connectors.jetstream.examine import verify_own
from dataflows.capture_source import CapturePartition, connector
from dataflows.memory.continuity import BEGINNING, CatchingUp, Memory
from dataflows.pipeline import Captured
from dataflows.reporting import remembering
from dataflows.stopping import stopping

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.source import Checkpoint, Chunk, Source, SourceReader
    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.stream import StreamClaim
    from dataflows.memory.continuity import InputState
    from dataflows.spec import SourceConfig

log = structlog.get_logger()


class RememberedPartition(CapturePartition):
    """The log of a source whose changes go through steps that remember.

    Args:
        nats: Where the stream is.
        config: The source's.
        source: Its connector.
        steps: What the steps are configured as.
        memory: What recovery holds of an earlier run.
    """

    def __init__(
        self,
        nats: NatsSpec,
        config: SourceConfig,
        source: Source,
        steps: str,
        memory: Memory | None,
    ) -> None:
        super().__init__(nats, config, source)
        self._steps, self._memory = steps, memory
        self._owned: StreamClaim | None = None
        self._catching_up: CatchingUp | None = None
        self._settling = self._noted = False

    @override
    @remembering
    def next_batch(self) -> Iterable[Captured]:
        if stopping.is_set():
            raise StopIteration
        if self._catching_up is not None:
            return self._catch_up(self._catching_up)
        if self._settling and not self._noted:
            self._pace.rested()
            return ()
        self._settling = False
        return super().next_batch()

    @override
    def _own(self) -> tuple[StreamClaim, Checkpoint | None]:
        if self._owned is None:
            return super()._own()
        # Nothing was written meanwhile by which a newer owner would have been noticed.
        verify_own(self._nats, self._owned)
        return self._owned, self._owned.checkpoint

    @override
    def _start(self, claim: StreamClaim, checkpoint: Checkpoint | None) -> SourceReader | None:
        """Start the source, once the memory stands where the stream stands and recovery knows.

        A started source may let the server drop its log up to the stream's checkpoint, and a memory
        that recovery holds of an earlier place could then no longer be brought up to it.
        """
        memory, goal = self._memory, checkpoint or BEGINNING
        if memory is None:
            memory = self._forget(claim, "recovery holds none")
        elif not memory.fits(self._steps, claim):
            memory = self._forget(claim, "it is that of other steps, or not of this stream")
        if memory.checkpoint == goal:
            return self._source.open(checkpoint)
        if memory.checkpoint.position == goal.position:
            self._reach(memory, goal)
            self._owned, self._settling, self._noted = claim, True, False
            return None
        try:
            # A loss that the owner has accepted is still one to the memory.
            reader = connector(self._nats, self._config, (), goal).open(memory.checkpoint)
        except GapError as error:
            self._forget(claim, f"the log behind it is gone: {error}")
            return self._source.open(checkpoint)
        log.info(
            "bringing what the stateful steps remember up to the stream",
            source=self._config.name,
            stream=claim.stream,
            after=memory.checkpoint.position or "the beginning",
            up_to=goal.position,
        )
        self._owned, self._catching_up = claim, CatchingUp(reader, claim, goal)
        return None

    def _catch_up(self, past: CatchingUp) -> Iterable[Captured]:
        chunk = past.read()
        if chunk is not None and chunk.changes:
            self._pace.worked()
        else:
            self._pace.rested()
            if past.stuck:
                self._end(past)
                self._forget(past.claim, "what the stream holds does not come once more")
                return ()
        if chunk is None:
            return ()
        memory = self._reach(self._memory or self._empty(past.claim), chunk.checkpoint)
        if chunk.checkpoint == past.goal:
            self._end(past)
            self._settling, self._noted = True, False
        return (Captured(past.claim, chunk, memory.lineage, past=True),)

    @override
    def _captured(self, claim: StreamClaim, chunk: Chunk) -> Captured:
        memory = self._reach(self._memory or self._empty(claim), chunk.checkpoint)
        return Captured(claim, chunk, memory.lineage)

    def _empty(self, claim: StreamClaim) -> Memory:
        return Memory(claim.writer, self._steps, claim.created, claim.checkpoint or BEGINNING)

    def _reach(self, memory: Memory, checkpoint: Checkpoint) -> Memory:
        self._memory = replace(memory, checkpoint=checkpoint)
        return self._memory

    def _forget(self, claim: StreamClaim, reason: str) -> Memory:
        log.info(
            "the stateful steps begin with an empty memory: the next change of each row is kept",
            source=self._config.name,
            reason=reason,
        )
        self._memory = self._empty(claim)
        return self._memory

    def _end(self, past: CatchingUp) -> None:
        past.close()
        self._catching_up = None

    @override
    @remembering
    def snapshot(self) -> InputState | None:
        super().snapshot()
        self._noted = True
        return self._memory.state if self._memory else None

    @override
    def close(self) -> None:
        super().close()
        if self._catching_up is not None:
            self._catching_up.close()
