"""How the sources' suites read changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.contracts.source import Chunk

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import SourceReader
    from tests.contract.source_adapter import SourceAdapter

PATIENCE = 60.0


def read_changes(reader: SourceReader, count: int) -> list[Chunk]:
    """Read until `count` changes have come."""
    chunks: list[Chunk] = []
    seen = 0
    deadline = time.monotonic() + PATIENCE
    while seen < count:
        assert time.monotonic() < deadline, f"{seen} of {count} changes in {PATIENCE} s"
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
            seen += len(chunk.changes)
    return chunks


def changes_of(chunks: list[Chunk]) -> list[Change]:
    return [change for chunk in chunks for change in chunk.changes]


def ids_of(adapter: SourceAdapter, chunks: list[Chunk]) -> list[int]:
    return [adapter.identify(change) for change in changes_of(chunks)]
