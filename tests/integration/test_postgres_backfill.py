"""Backfills of PostgreSQL tables, by a source that runs."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.contracts.backfills import Stage, Wish
from tests.contract.context import source_context
from tests.integration.asked_backfills import AskedBackfills
from tests.integration.postgres_capture import after, envelope, make_source, read_until
from tests.integration.postgres_snapshots import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Chunk, SourceReader
    from connectors.postgres.source import PostgresSource
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

_PATIENCE = 20.0


def source_of(database: Database, backfills: AskedBackfills) -> PostgresSource:
    return make_source(database.dsn, context=source_context(backfills=backfills))


def read_while(reader: SourceReader, going: Callable[[], bool]) -> list[Chunk]:
    """Read as a flow does, which confirms what is stored."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + _PATIENCE
    while going():
        assert time.monotonic() < deadline, f"not done: {len(chunks)} chunks"
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
            reader.confirm(chunk.checkpoint)
    return chunks


def rows_of(chunks: list[Chunk]) -> list[Change]:
    return [change for chunk in chunks for change in chunk.changes if change.op == "r"]


def begun(database: Database) -> Checkpoint:
    """The checkpoint of a source that has started, and captured nothing."""
    with closing(make_source(database.dsn).open(None)) as reader:
        [chunk] = read_until(reader, lambda seen: len(seen) == 1)
    return chunk.checkpoint


def items(database: Database, count: int = 2500) -> None:
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY, value text)",
        f"INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, {count}) i",
    )


def test_rows_that_are_asked_for_come_and_no_others(database: Database) -> None:
    items(database)
    run(database, "CREATE TABLE others (id int PRIMARY KEY)", "INSERT INTO others VALUES (1)")
    backfills = AskedBackfills()
    with closing(source_of(database, backfills).open(begun(database))) as reader:
        backfills.ask("b1", "public.it*", where="id % 2 = 0 -- even", sink="new")
        chunks = read_while(reader, lambda: not backfills.stage("b1").final)
    found = rows_of(chunks)
    assert [after(row)["id"] for row in found] == list(range(2, 2501, 2))
    assert {envelope(row)["source"]["snapshot"] for row in found} == {  # type: ignore[index]
        "incremental"
    }
    assert {chunk.sink for chunk in chunks if rows_of([chunk])} == {"new"}
    told = backfills.told["b1"][-1]
    assert (told.stage, told.rows, told.error) == (Stage.DONE, 1250, "")
    assert 0 < told.started < told.ended


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("no_such = 1", "no_such"),
        ("true) UNION SELECT id, value FROM items WHERE (true", "syntax error"),
        ("true; DROP TABLE items", "syntax error"),
        ("id", "boolean"),
        ("id > 1 /*", "comment"),
        ("1 / (id - 5) = 1", "division by zero"),
        ("nextval('s') > 0", ""),
    ],
)
def test_a_bad_condition_fails_by_itself(database: Database, where: str, part: str) -> None:
    items(database, 10)
    run(database, "CREATE SEQUENCE s")
    backfills = AskedBackfills()
    with closing(source_of(database, backfills).open(begun(database))) as reader:
        backfills.ask("bad", "public.items", where=where)
        backfills.ask("good", "public.items")
        chunks = read_while(reader, lambda: not backfills.stage("good").final)
        run(database, "INSERT INTO items VALUES (11, 'later')")
        more = read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
    told = backfills.told["bad"][-1]
    assert told.stage is Stage.FAILED
    assert part in told.error
    assert [after(row)["id"] for row in rows_of(chunks)] == list(range(1, 11))
    assert not rows_of(more)


def test_a_table_that_is_not_captured_fails_by_itself(database: Database) -> None:
    items(database, 1)
    backfills = AskedBackfills()
    with closing(source_of(database, backfills).open(begun(database))) as reader:
        backfills.ask("b", "public.none")
        read_while(reader, lambda: not backfills.stage("b").final)
    assert "no table that is captured matches public.none" in backfills.told["b"][-1].error


def test_it_goes_on_where_it_was_and_is_not_repeated(database: Database) -> None:
    items(database, 5000)
    checkpoint, found = begun(database), []
    asked = AskedBackfills()
    asked.ask("b", "public.items")
    for _ in range(3):
        # A new process knows nothing of what the one before has told.
        backfills = AskedBackfills(dict(asked.asked))
        with closing(source_of(database, backfills).open(checkpoint)) as reader:
            seen = read_until(reader, lambda chunks: bool(rows_of(chunks)))
            checkpoint = seen[-1].checkpoint
            found += rows_of(seen)
    backfills = AskedBackfills(dict(asked.asked))
    with closing(source_of(database, backfills).open(checkpoint)) as reader:
        chunks = read_while(reader, lambda: not backfills.stage("b").final)
    found += rows_of(chunks)
    assert [after(row)["id"] for row in found] == list(range(1, 5001))
    # The process died right before it could tell.
    backfills = AskedBackfills(dict(asked.asked))
    with closing(source_of(database, backfills).open(chunks[-1].checkpoint)) as reader:
        again = read_while(reader, lambda: not backfills.stage("b").final)
    assert not rows_of(again)
    told = backfills.told["b"][-1]
    assert (told.stage, told.rows) == (Stage.DONE, 5000)


def test_pause_resume_cancel_and_the_queue(database: Database) -> None:
    items(database, 3000)
    backfills = AskedBackfills()
    backfills.ask("one", "public.items", rate=500)
    backfills.ask("two", "public.items", where="id <= 3")
    backfills.ask("three", "public.items", where="id <= 2")
    backfills.wish("two", Wish.PAUSE)
    with closing(source_of(database, backfills).open(begun(database))) as reader:
        first = read_until(reader, lambda chunks: bool(rows_of(chunks)))
        backfills.wish("one", Wish.PAUSE)
        first += read_while(reader, lambda: backfills.stage("one") is not Stage.PAUSED)
        idle = time.monotonic() + 1.5
        assert not rows_of(read_while(reader, lambda: time.monotonic() < idle))
        # What has begun holds up those behind it.
        assert backfills.stage("three") is Stage.QUEUED
        backfills.asked["one"] = type(backfills.asked["one"])("one", 0, ("public.items",))
        first += read_while(reader, lambda: not backfills.stage("one").final)
        assert [after(row)["id"] for row in rows_of(first)] == list(range(1, 3001))
        # What has not begun lets them pass.
        third = read_while(reader, lambda: not backfills.stage("three").final)
        assert [after(row)["id"] for row in rows_of(third)] == [1, 2]
        assert backfills.stage("two") is Stage.PAUSED
        backfills.wish("two", Wish.CANCEL)
        rest = read_while(reader, lambda: not backfills.stage("two").final)
    assert not rows_of(rest)
    assert backfills.stage("two") is Stage.CANCELLED


def test_no_more_rows_a_second_than_are_allowed(database: Database) -> None:
    items(database, 1500)
    backfills = AskedBackfills()
    with closing(source_of(database, backfills).open(begun(database))) as reader:
        backfills.ask("b", "public.items", rate=500)
        began = time.monotonic()
        found = rows_of(read_while(reader, lambda: not backfills.stage("b").final))
        took = time.monotonic() - began
    assert len(found) == 1500
    assert 2.0 <= took < 5.0


def test_no_row_follows_what_is_newer(database: Database) -> None:
    items(database, 2000)
    backfills = AskedBackfills()
    with closing(source_of(database, backfills).open(begun(database))) as reader:
        backfills.ask("b", "public.items", rate=1000)
        chunks = read_until(reader, lambda seen: bool(rows_of(seen)))
        run(database, "UPDATE items SET value = 'new'", "DELETE FROM items WHERE id % 3 = 0")
        chunks += read_while(reader, lambda: not backfills.stage("b").final)
        run(database, "INSERT INTO items VALUES (0, 'end')")
        chunks += read_until(reader, lambda seen: any(c.changes for c in seen))
    target: dict[object, object] = {}
    for change in (change for chunk in chunks for change in chunk.changes):
        row = envelope(change)
        if change.op == "d":
            target.pop(row["before"]["id"], None)  # type: ignore[index]
        else:
            target[after(change)["id"]] = after(change)["value"]
    with database.connect() as connection:
        rows = connection.execute("SELECT id, value FROM items").fetchall()
    assert target == {row[0]: row[1] for row in rows}


def test_tables_whose_rows_were_never_told_are_named_once(database: Database) -> None:
    items(database, 1)
    run(database, "CREATE TABLE orders (id int PRIMARY KEY)", "INSERT INTO orders VALUES (1)")
    with closing(make_source(database.dsn, tables=("public.items",)).open(None)) as reader:
        [chunk] = read_until(reader, lambda seen: len(seen) == 1)
    wider = ("public.items", "public.orders")
    with capture_logs() as logs:
        make_source(database.dsn, tables=wider).open(chunk.checkpoint).close()
        make_source(database.dsn, tables=wider).open(chunk.checkpoint).close()
    told = [entry for entry in logs if entry["event"].startswith("tables are captured")]
    assert [(entry["tables"], entry["cure"]) for entry in told] == [
        (["public.orders"], "waxtap backfill start shop --table public.orders")
    ]
