"""What happens to a source's changes between its log and its stream.

A pipeline takes a chunk and returns what is to be stored of it, each change with its subject. The
default pipeline keeps every change as it is and routes it by its table. Filters and transforms have
their place in `Pipeline.apply`, between the chunk's changes and the router; a pipeline that looks
at no column leaves the envelopes' bytes undecoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.contracts import Change, Checkpoint, Chunk
    from connectors.jetstream.stream import StreamClaim
    from dataflows.routing import Router


@dataclass(slots=True)
class Captured:
    """A chunk, and the right to store it in its source's stream."""

    claim: StreamClaim
    chunk: Chunk


@dataclass(slots=True)
class Routed:
    """What is to be stored of a chunk, in log order.

    Attributes:
        claim: The right to write the stream.
        messages: Subject and change.
        checkpoint: The source's state behind the chunk.
        resume: The state of the checkpoint before it, for a cut inside the chunk.
    """

    claim: StreamClaim
    messages: list[tuple[str, Change]]
    checkpoint: Checkpoint
    resume: dict[str, str]


class Pipeline:
    """The default pipeline of one source: keep everything, route by table."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def apply(self, captured: Captured) -> Routed:
        """Return what is to be stored of a chunk."""
        chunk = captured.chunk
        return Routed(
            captured.claim, self._router.route(chunk.changes), chunk.checkpoint, chunk.resume
        )
