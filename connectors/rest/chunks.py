"""Cuts the changes of a poll into chunks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES
from connectors.contracts.source import Checkpoint, Chunk
from connectors.rest.envelope import Envelopes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.changes import Change, TableSchema
    from connectors.rest.outcome import Outcome


def state_of(name: str) -> dict[str, str]:
    """The state of a checkpoint at or inside an outcome."""
    return {"poll": name}


def chunks(outcome: Outcome, table: TableSchema, after: int = -1) -> Iterator[Chunk]:
    """The changes of an outcome, whose delta has been read.

    A poll is one transaction, so that a chunk holds changes of one poll only.

    Args:
        outcome: What is read; closing it is the caller's.
        table: The records' shape.
        after: Changes up to this index are left out.

    Raises:
        GapError: The outcome is damaged.
    """
    envelopes = Envelopes(table, outcome.name, outcome.head, time.time_ns() // 1_000_000)
    state = state_of(outcome.name)
    changes: list[Change] = []
    size = 0

    def chunk() -> Chunk:
        return Chunk(table.source, changes, Checkpoint(changes[-1].position, state), state)

    for index, found in enumerate(outcome.changes()):
        if index <= after:
            continue
        change = envelopes.change(index, found)
        length = len(change.envelope)
        if changes and (len(changes) == CHUNK_CHANGES or size + length > CHUNK_BYTES):
            yield chunk()
            changes, size = [], 0
        changes.append(change)
        size += length
    if changes:
        yield chunk()
