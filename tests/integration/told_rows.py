"""What tests of rows that are read beside a log share, whatever the database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from connectors.contracts.source import Chunk, SourceReader


def told(chunks: list[Chunk]) -> list[tuple[str, object, object]]:
    """Op, `id` and `v` of each change."""
    return [
        (change.op, new["id"], new["v"])
        for chunk in chunks
        for change in chunk.changes
        for new in [msgspec.json.decode(change.envelope)["after"]]
    ]


def updated(chunks: list[Chunk]) -> bool:
    return ("u", 1, "new") in told(chunks)


def read_for(reader: SourceReader, seconds: float) -> list[Chunk]:
    deadline = time.monotonic() + seconds
    chunks = []
    while time.monotonic() < deadline:
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
    return chunks
