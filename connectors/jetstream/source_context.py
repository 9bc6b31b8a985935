"""What a source is given that keeps its state, or its input, beside its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.contracts.source import SourceContext
from connectors.jetstream.backfills import JetStreamBackfills
from connectors.jetstream.inbox import JetStreamInbox
from connectors.jetstream.source_state import ObjectState

if TYPE_CHECKING:
    from threading import Event

    from connectors.contracts.source import Checkpoint
    from connectors.jetstream.spec import NatsSpec


def source_context(
    nats: NatsSpec,
    source: str,
    stop: Event,
    past: Checkpoint | None = None,
    *,
    ddl: bool = False,
) -> SourceContext:
    """The context of a source by its name; nothing is connected yet.

    Args:
        nats: Where its stream is.
        source: The source's name.
        stop: `SourceContext.stop`.
        past: `SourceContext.past`.
        ddl: `SourceContext.ddl`.
    """
    return SourceContext(
        stop,
        ObjectState(nats, source),
        JetStreamInbox(nats, source),
        past,
        JetStreamBackfills(nats, source),
        ddl,
    )
