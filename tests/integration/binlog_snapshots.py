"""What the tests of MySQL and MariaDB snapshots share."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk, SourceReader
    from tests.integration.binlog_capture import Log

PATIENCE = 60.0


def done(chunks: list[Chunk]) -> bool:
    return bool(chunks) and '"done":true' in chunks[-1].checkpoint.state.get("snapshot", "")


def read_until(reader: SourceReader, enough: Callable[[list[Chunk]], bool]) -> list[Chunk]:
    """Read until it is enough."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + PATIENCE
    while not enough(chunks):
        assert time.monotonic() < deadline, f"{len(chunks)} chunks in {PATIENCE} s"
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
    return chunks


def take(log: Log, **settings: object) -> list[Change]:
    """A whole snapshot; nothing is said of the table that marks the end of changes."""
    with closing(log.source(snapshot="initial", **settings).open(None)) as reader:
        chunks = read_until(reader, done)
    return [
        change
        for chunk in chunks
        for change in chunk.changes
        if change.table is not None and change.table.name != "the_end"
    ]
