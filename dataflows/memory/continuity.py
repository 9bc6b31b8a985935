"""Keeps the memory of a source's stateful steps in line with its stream.

The stream tells where its source stands; Bytewax's recovery holds what the steps remember, and
where that was. After a crash the stream is mostly ahead: what it holds behind the memory was seen
by steps whose memory is lost. A memory of that age may judge nothing: it would take a row that has
changed there and back for one that has not changed. So the source is read from the memory's place
once more, through the steps and no further, until both stand at the same place. Where that cannot
be, the steps begin with an empty memory, which keeps everything.

A memory has a name, its lineage, which travels with every chunk: steps that hold the memory of
another lineage forget it before they judge.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from connectors.contracts.source import Checkpoint, Chunk

if TYPE_CHECKING:
    from connectors.contracts.source import SourceReader
    from connectors.jetstream.stream import StreamClaim

# Before the first change of a source.
BEGINNING = Checkpoint("", {})

_PATIENCE = 60.0


class InputState(TypedDict, total=False):
    """What a source's partition snapshots.

    Keys:
        v: Version of this format.
        position: Of the last change that was emitted.
        state: As in `contracts.Checkpoint`; this and the following only with stateful steps.
        lineage: The name of their memory.
        steps: What they were configured as.
        created: When the stream was created.
    """

    v: str
    position: str
    state: dict[str, str]
    lineage: str
    steps: str
    created: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Up to where the steps of a source have seen its changes, and for which stream.

    Attributes:
        lineage: Its name; another one means that it began empty.
        steps: What the steps are configured as.
        created: When the stream was created.
        checkpoint: Behind the last change that they have seen.
    """

    lineage: str
    steps: str
    created: str
    checkpoint: Checkpoint

    @staticmethod
    def read(state: InputState | None) -> Memory | None:
        """What an earlier run has left; None: nothing that could be gone on with."""
        if state is None or state.get("v") != "2":
            return None
        checkpoint = Checkpoint(state["position"], state["state"])
        return Memory(state["lineage"], state["steps"], state["created"], checkpoint)

    @property
    def state(self) -> InputState:
        """What `read` reads."""
        return {
            "v": "2",
            "position": self.checkpoint.position,
            "state": self.checkpoint.state,
            "lineage": self.lineage,
            "steps": self.steps,
            "created": self.created,
        }

    def fits(self, steps: str, claim: StreamClaim) -> bool:
        """Whether it is that of these steps and of this stream, and not ahead of it."""
        if self.steps != steps or self.created != claim.created:
            return False
        reached, position = (claim.checkpoint or BEGINNING).position, self.checkpoint.position
        return position == reached or (position < reached and bool(self.checkpoint.state))


class CatchingUp:
    """Reads what a stream holds already, for the steps' memory alone.

    Args:
        reader: Opened behind the memory's checkpoint.
        claim: The right to write the stream.
        goal: The stream's checkpoint, which lies behind that of the memory.

    Attributes:
        claim: As given.
        goal: As given.
    """

    def __init__(self, reader: SourceReader, claim: StreamClaim, goal: Checkpoint) -> None:
        self.claim, self.goal = claim, goal
        self._reader = reader
        self._moved = time.monotonic()

    @property
    def stuck(self) -> bool:
        """Whether no change has come for so long that what is missing may never come.

        Its table may no longer be captured.
        """
        return time.monotonic() - self._moved > _PATIENCE

    def read(self) -> Chunk | None:
        """As `SourceReader.read`, up to the goal: its checkpoint comes last."""
        chunk = self._reader.read()
        if chunk is None:
            return None
        if chunk.changes:
            self._moved = time.monotonic()
        if chunk.checkpoint.position < self.goal.position:
            return chunk
        changes = [each for each in chunk.changes if each.position <= self.goal.position]
        return Chunk(chunk.source, changes, self.goal, chunk.resume)

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self._reader.close()
