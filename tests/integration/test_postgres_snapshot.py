"""Snapshots of PostgreSQL tables that are taken while changes flow."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.integration.postgres_capture import (
    after,
    envelope,
    make_source,
    read_until,
)

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Chunk
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def done(chunks: list[Chunk]) -> bool:
    return bool(chunks) and '"done":true' in chunks[-1].checkpoint.state["snapshot"]


def take(database: Database, resume: Checkpoint | None = None, **settings: object) -> list[Change]:
    """A whole snapshot."""
    source = make_source(database.dsn, snapshot="initial", **settings)
    with closing(source.open(resume)) as reader:
        return [change for chunk in read_until(reader, done) for change in chunk.changes]


def run(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_rows_that_were_there_come_once_and_then_the_changes(database: Database) -> None:
    run(
        database,
        "CREATE TABLE items (id bigint PRIMARY KEY, value text)",
        "INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 2500) i",
        "CREATE TABLE none (id int PRIMARY KEY)",
        "CREATE TABLE others (id int PRIMARY KEY)",
        "INSERT INTO others VALUES (1)",
        "CREATE TABLE empty (id int PRIMARY KEY)",
    )
    changes = take(database)
    assert [after(change) for change in changes] == [
        *({"id": i, "value": f"v{i}"} for i in range(1, 2501)),
        {"id": 1},
    ]
    assert {change.op for change in changes} == {"r"}
    marks = [envelope(change)["source"]["snapshot"] for change in changes]  # type: ignore[index]
    assert marks == ["first", *["true"] * 2499, "last"]
    positions = [change.position for change in changes]
    assert positions == sorted(set(positions))
