"""What the tests of PostgreSQL snapshots share."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tests.integration.postgres_capture import make_source, read_until

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk
    from tests.servers.postgres import Database


def done(chunks: list[Chunk]) -> bool:
    return bool(chunks) and '"done":true' in chunks[-1].checkpoint.state["snapshot"]


def take(database: Database, name: str = "shop", **settings: object) -> list[Change]:
    """A whole snapshot."""
    source = make_source(
        database.dsn,
        name,
        accept=(),
        checkpoint_interval=0.1,
        context=None,
        snapshot="initial",
        **settings,
    )
    with closing(source.open(None)) as reader:
        return [change for chunk in read_until(reader, done) for change in chunk.changes]


def run(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())
