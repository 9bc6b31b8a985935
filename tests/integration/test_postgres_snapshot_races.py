"""Rows that are read while others write them: nothing older ever follows what is newer."""

from __future__ import annotations

import random
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from connectors.contracts.changes import UNAVAILABLE
from connectors.snapshot import read_ahead, touches
from connectors.snapshot.chunk_reader import ChunkReader
from connectors.snapshot.snapshot import Snapshot
from tests.integration.postgres_capture import (
    envelope,
    make_source,
    read_until,
)
from tests.integration.postgres_snapshots import ask, done, run, waiting_for_standbys
from tests.integration.told_rows import read_for, told, updated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.changes import Change
    from connectors.postgres.snapshot.tables import Published
    from tests.servers.postgres import Database, DatabaseFactory, PostgresFactory

pytestmark = pytest.mark.servers


@pytest.fixture
def alone(postgres_factory: PostgresFactory, database_factory: DatabaseFactory) -> Database:
    """A database on a server whose settings may be changed, with one row."""
    database = database_factory(postgres_factory())
    run(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "INSERT INTO t VALUES (1, 'old'), (2, 'old')",
    )
    return database


@contextmanager
def waiting_for_a_standby(database: Database) -> Iterator[None]:
    """Meanwhile, the update of a row is in the log and visible to nobody."""
    with waiting_for_standbys(database, "UPDATE t SET v = 'new' WHERE id = 1"):
        yield


def test_a_commit_that_is_emitted_and_not_yet_visible_is_waited_for(
    alone: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(make_source(alone.dsn, snapshot="initial").open(None)) as reader:
        # Nothing is asked for before the update is given out: its key is noted nowhere.
        with monkeypatch.context() as held:
            held.setattr(read_ahead.ReadAhead, "ask", lambda *_: None)
            read_for(reader, 0.3)
            with waiting_for_a_standby(alone):
                chunks = read_until(reader, updated)
                assert told(chunks) == [("u", 1, "new")]
                held.undo()
                # what a SELECT says now
                assert ask(alone, "SELECT v FROM t WHERE id = 1") == "old"
                assert told(read_for(reader, 1.5)) == []
        chunks = read_until(reader, done)
    assert told(chunks) == [("r", 1, "new"), ("r", 2, "old")]


def test_a_commit_that_was_emitted_by_an_earlier_process_is_waited_for(
    alone: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(alone.dsn, snapshot="initial")
    with monkeypatch.context() as held:
        held.setattr(Snapshot, "work", lambda _: None)
        with closing(source.open(None)) as reader:
            read_until(reader, bool)
            with waiting_for_a_standby(alone):
                chunks = read_until(reader, updated)
                reader.close()
                held.undo()
                with closing(source.open(chunks[-1].checkpoint)) as other:
                    assert told(read_for(other, 2.0)) == []
        with closing(source.open(chunks[-1].checkpoint)) as last:
            chunks = read_until(last, done)
    assert told(chunks) == [("r", 1, "new"), ("r", 2, "old")]


def test_a_commit_that_is_emitted_while_the_chunk_is_open_takes_its_row_out(
    alone: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = threading.Event()

    def note(taken: Snapshot[Published], _: int) -> bool:
        if taken.ready:
            ready.set()
        return False

    source = make_source(alone.dsn, snapshot="initial")
    with closing(source.open(None)) as reader, monkeypatch.context() as held:
        # The chunk is read, and nothing of it is given out yet.
        held.setattr(Snapshot, "due", note)
        read_until(reader, lambda _: ready.is_set())
        with waiting_for_a_standby(alone):
            chunks = read_until(reader, updated)
            held.undo()
            chunks += read_until(reader, done)
    assert told(chunks) == [("u", 1, "new"), ("r", 2, "old")]


@pytest.mark.parametrize("readers", [1, 3])
def test_replayed_in_order_the_stream_is_the_table(
    database: Database, monkeypatch: pytest.MonkeyPatch, readers: int
) -> None:
    """Writers change keys, values, large values, and empty a table, while small chunks are read."""
    monkeypatch.setattr(read_ahead, "ROWS", 64)
    surveys: list[None] = []
    if readers > 1:
        # more than can be remembered come between two chunks
        monkeypatch.setattr(touches, "MOST_TRANSACTIONS", 25)
        survey = ChunkReader.survey

        def counted(reader: ChunkReader[Published]) -> None:
            surveys.append(None)
            if len(surveys) > 2:
                monkeypatch.setattr(touches, "MOST_TRANSACTIONS", 200_000)
            survey(reader)

        monkeypatch.setattr(ChunkReader, "survey", counted)
    run(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, v bigint, large text)",
        "ALTER TABLE t ALTER large SET STORAGE EXTERNAL",
        "INSERT INTO t SELECT i, 0, repeat('x', 3000) FROM generate_series(1, 3000) i",
        "CREATE TABLE u (id text PRIMARY KEY, v bigint)",
        "INSERT INTO u SELECT i::text, 0 FROM generate_series(1, 1000) i",
    )
    stop = threading.Event()
    writers = [
        threading.Thread(target=write, args=(database.dsn, seed, stop)) for seed in (1, 2, 3)
    ]
    source = make_source(database.dsn, snapshot="initial", snapshot_readers=readers)
    with closing(source.open(None)) as reader:
        for writer in writers:
            writer.start()
        try:
            chunks = read_until(reader, done)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        run(database, "INSERT INTO u VALUES ('end', 0)")
        chunks += read_until(
            reader, lambda seen: any(c.key == '{"id":"end"}' for s in seen for c in s.changes)
        )
    changes = [change for chunk in chunks for change in chunk.changes]
    positions = [change.position for change in changes]
    assert positions == sorted(set(positions))
    with database.connect() as connection:
        for table in ("t", "u"):
            rows = connection.execute(f"SELECT to_jsonb(x) FROM {table} x".encode()).fetchall()
            wanted = {str(row["id"]): row for (row,) in rows}  # type: ignore[index]
            assert replay(changes, table) == wanted
    assert sum(change.op == "r" for change in changes) > 2500
    assert len(surveys) > 2 or readers == 1


def write(dsn: str, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        number = 0
        while not stop.is_set():
            number += 1
            id_ = chance.randint(1, 3000)
            with suppress(psycopg.errors.DeadlockDetected), connection.transaction():
                connection.execute("UPDATE t SET v = v + 1 WHERE id = %s", [id_])
                connection.execute("UPDATE u SET v = v + 1 WHERE id = %s", [str(id_ // 3)])
                match chance.randrange(8):
                    case 0:
                        connection.execute("DELETE FROM t WHERE id = %s", [id_ + 1])
                    case 1:
                        connection.execute(
                            "INSERT INTO t VALUES (%s, %s, 'new') ON CONFLICT (id) DO UPDATE"
                            " SET v = excluded.v",
                            [id_ + 1, number],
                        )
                    case 2:
                        connection.execute(
                            "UPDATE u SET id = id || '.' WHERE id = %s AND length(id) < 8",
                            [str(id_ // 3)],
                        )
                    case 3 if number % 40 == 0:
                        connection.execute("TRUNCATE u")
                        connection.execute(
                            "INSERT INTO u SELECT i::text, %s FROM generate_series(1, 1000) i",
                            [number],
                        )


def replay(changes: list[Change], table: str) -> dict[str, dict[str, object]]:
    """What a target has that stores one change after the other."""
    rows: dict[str, dict[str, object]] = {}
    for change in changes:
        assert change.table is not None
        if change.table.name != table:
            continue
        if change.op == "t":
            rows.clear()
            continue
        body = envelope(change)
        before, new = body["before"], body["after"]
        old: dict[str, object] = {}
        if isinstance(before, dict):
            old = rows.pop(str(before["id"]), {})
        if isinstance(new, dict):
            old = old or rows.get(str(new["id"]), {})
            for name in change.unavailable:
                new[name] = old.get(name, UNAVAILABLE)
            rows[str(new["id"])] = new
    return rows
