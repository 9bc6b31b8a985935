"""Rows that are read beside the log of MySQL and MariaDB are never older than what was told."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import pymysql
import pytest

from connectors.errors import RetryableError
from connectors.snapshot import read_ahead
from connectors.snapshot.read_ahead import ReadAhead
from connectors.snapshot.snapshot import Snapshot
from tests.integration.asked_backfills import AskedBackfills
from tests.integration.binlog_capture import Log
from tests.integration.binlog_snapshots import done, read_until
from tests.integration.told_rows import read_for, told, updated
from tests.servers.binlog import connect, rows, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connectors.contracts.changes import Change
    from connectors.mysql.snapshot.tables import Listed
    from tests.servers.binlog import Kind

pytestmark = pytest.mark.servers


@pytest.fixture
def alone(binlog_kind: Kind) -> Log:
    """A server of its own, whose commits can be made to wait behind the log."""
    server = binlog_kind.factory()
    if not binlog_kind.mariadb:
        run(server, "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
    made = Log(binlog_kind.type, server)
    made.run("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    made.run("INSERT INTO t VALUES (1, 'old'), (2, 'old')")
    return made


@contextmanager
def waiting_for_a_replica(log: Log) -> Iterator[None]:
    """An update of the first row is in the log, and not committed until this ends."""
    name = "rpl_semi_sync_master" if log.type == "mariadb" else "rpl_semi_sync_source"
    run(
        log.server,
        f"SET GLOBAL {name}_timeout = 100000",
        f"SET GLOBAL {name}_wait_point = 'AFTER_SYNC'",
        f"SET GLOBAL {name}_enabled = ON",
    )
    writer = threading.Thread(target=log.run, args=("UPDATE t SET v = 'new' WHERE id = 1",))
    writer.start()
    waiting = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE LIKE '%%semi-sync ACK%%'"
    until(lambda: bool(rows(log.server, waiting)))
    try:
        yield
    finally:
        run(log.server, f"SET GLOBAL {name}_enabled = OFF")
        writer.join()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_commit_that_is_emitted_and_not_yet_visible_is_waited_for(
    alone: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(alone.source(snapshot="initial").open(None)) as reader:
        # Nothing is asked for before the update is given out: its key is noted nowhere.
        with monkeypatch.context() as held:
            held.setattr(ReadAhead, "ask", lambda *_: None)
            read_for(reader, 0.5)
            with waiting_for_a_replica(alone):
                chunks = read_until(reader, updated)
                assert told(chunks) == [("u", 1, "new")]
                held.undo()
                # what a SELECT says now
                query = f"SELECT v FROM {alone.name}.t WHERE id = 1"
                assert rows(alone.server, query) == [("old",)]
                assert told(read_for(reader, 1.5)) == []
        chunks = read_until(reader, done)
    assert told(chunks) == [("r", 1, "new"), ("r", 2, "old")]


def test_a_backfill_waits_for_a_commit_that_was_emitted_before_it_was_asked_for(
    alone: Log,
) -> None:
    backfills = AskedBackfills()
    with closing(alone.asked(backfills).open(None)) as reader:
        read_for(reader, 0.5)
        with waiting_for_a_replica(alone):
            chunks = read_until(reader, updated)
            backfills.ask("b", f"{alone.name}.t")
            assert told(read_for(reader, 1.5)) == []
        chunks = read_until(reader, lambda seen: len(told(seen)) == 2)
    assert told(chunks) == [("r", 1, "new"), ("r", 2, "old")]


def test_a_commit_that_is_emitted_while_the_chunk_is_open_takes_its_row_out(
    alone: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = threading.Event()

    def note(taken: Snapshot[Listed], _: int) -> bool:
        if taken.ready and taken._ahead.first.request.table.name == "t":  # type: ignore[union-attr]
            ready.set()
            return False
        return due(taken, 1 << 62)

    due = Snapshot.due
    with (
        closing(alone.source(snapshot="initial").open(None)) as reader,
        monkeypatch.context() as held,
    ):
        # The chunk is read, and nothing of it is given out yet.
        held.setattr(Snapshot, "due", note)
        read_until(reader, lambda _: ready.is_set())
        with waiting_for_a_replica(alone):
            chunks = read_until(reader, updated)
            held.undo()
            chunks += read_until(reader, done)
    assert told(chunks) == [("u", 1, "new"), ("r", 2, "old")]


def test_a_commit_that_was_emitted_by_an_earlier_process_is_waited_for(
    alone: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = alone.source(snapshot="initial")
    with monkeypatch.context() as held:
        held.setattr(Snapshot, "work", lambda _: None)
        with closing(source.open(None)) as reader:
            read_until(reader, bool)
            with waiting_for_a_replica(alone):
                chunks = read_until(reader, updated)
                reader.close()
                held.undo()
                if alone.type == "mysql":
                    with pytest.raises(RetryableError) as caught:
                        source.open(chunks[-1].checkpoint)
                    assert caught.value.code == "mysql.not_committed"
                else:
                    with closing(source.open(chunks[-1].checkpoint)) as other:
                        assert told(read_for(other, 2.0)) == []
        with closing(source.open(chunks[-1].checkpoint)) as last:
            chunks = read_until(last, done)
    assert told(chunks) == [("r", 1, "new"), ("r", 2, "old")]


def test_replayed_in_order_the_stream_is_the_table(
    binlog_kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers change keys and values, and empty a table, while small chunks are read."""
    monkeypatch.setattr(read_ahead, "ROWS", 64)
    log = Log(binlog_kind.type, binlog_kind.server)
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY, v bigint)",
        "CREATE TABLE u (id varchar(40) PRIMARY KEY, v bigint)",
    )
    for table in "tu":
        values = ",".join(f"('{number}', 0)" for number in range(1, 2001))
        log.run(f"INSERT INTO {table} VALUES {values}")
    stop = threading.Event()
    writers = [threading.Thread(target=write, args=(log, seed, stop)) for seed in (1, 2, 3)]
    with closing(log.source(snapshot="initial").open(None)) as reader:
        for writer in writers:
            writer.start()
        try:
            chunks = read_until(reader, done)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        log.run("INSERT INTO u VALUES ('end', 0)")
        chunks += read_until(
            reader, lambda seen: any(c.key == '{"id":"end"}' for s in seen for c in s.changes)
        )
    changes = [change for chunk in chunks for change in chunk.changes]
    positions = [change.position for change in changes]
    assert positions == sorted(set(positions))
    for table in "tu":
        found = rows(log.server, f"SELECT id, v FROM {log.name}.{table}")
        assert replay(changes, table) == {str(key): (key, v) for key, v in found}
    assert sum(change.op == "r" for change in changes) > 1500


def write(log: Log, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    with connect(log.server, log.name) as connection, connection.cursor() as cursor:
        connection.autocommit(False)
        number = 0
        while not stop.wait(0.001):
            number += 1
            id_ = chance.randint(1, 2000)
            with suppress(pymysql.err.OperationalError, pymysql.err.IntegrityError):
                cursor.execute("UPDATE t SET v = v + 1 WHERE id = %s", [id_])
                cursor.execute("UPDATE u SET v = v + 1 WHERE id = %s", [str(id_)])
                match chance.randrange(8):
                    case 0:
                        cursor.execute("DELETE FROM t WHERE id = %s", [id_ + 1])
                    case 1:
                        cursor.execute("REPLACE INTO t VALUES (%s, %s)", [id_ + 1, number])
                    case 2:
                        cursor.execute(
                            "UPDATE u SET id = concat(id, '.') WHERE id = %s", [str(id_ + 2)]
                        )
                    case 3 if number % 40 == 0:
                        cursor.execute("TRUNCATE u")
                        cursor.execute("INSERT INTO u SELECT id, %s FROM t", [number])
            connection.commit()


def replay(changes: list[Change], table: str) -> dict[str, tuple[object, object]]:
    """What a target has that stores one change after the other."""
    held: dict[str, tuple[object, object]] = {}
    for change in changes:
        assert change.table is not None
        if change.table.name != table:
            continue
        if change.op == "t":
            held.clear()
            continue
        body = msgspec.json.decode(change.envelope)
        if body["before"] is not None:
            held.pop(str(body["before"]["id"]), None)
        if body["after"] is not None:
            held[str(body["after"]["id"])] = (body["after"]["id"], body["after"]["v"])
    return held
