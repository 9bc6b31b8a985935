"""What the tests of the PostgreSQL source share."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from connectors.postgres.source import PostgresSource
from connectors.postgres.spec import SourceSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk, SourceContext, SourceReader

PATIENCE = 60.0


def make_source(
    dsn: str,
    name: str = "shop",
    *,
    accept: Collection[str] = (),
    checkpoint_interval: float = 0.1,
    context: SourceContext | None = None,
    **settings: object,
) -> PostgresSource:
    """A source as a new process would make it."""
    # Most tests are about the log alone.
    given = {"type": "postgres", "dsn": dsn, "snapshot": "never", **settings}
    spec = SourceSpec.model_validate(given)
    return PostgresSource(name, spec, accept, context, checkpoint_interval=checkpoint_interval)


def read_until(reader: SourceReader, done: Callable[[list[Chunk]], bool]) -> list[Chunk]:
    """Read until `done` says so of the chunks so far."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + PATIENCE
    while not done(chunks):
        assert time.monotonic() < deadline, f"not done within {PATIENCE} s: {len(chunks)} chunks"
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
    return chunks


def read_changes(reader: SourceReader, count: int) -> list[Change]:
    """Read until `count` changes have come."""
    chunks = read_until(reader, lambda seen: sum(len(c.changes) for c in seen) >= count)
    return [change for chunk in chunks for change in chunk.changes]


def envelope(change: Change) -> dict[str, object]:
    """The envelope, read."""
    decoded = json.loads(change.envelope)
    assert isinstance(decoded, dict)
    return decoded


def after(change: Change) -> dict[str, object]:
    """The row behind the change."""
    row = envelope(change)["after"]
    assert isinstance(row, dict)
    return row


def ids(changes: list[Change]) -> list[object]:
    """The column `id` of each row."""
    return [after(change)["id"] for change in changes]
