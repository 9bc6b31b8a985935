"""What waits for the PostgreSQL sink's target, and how long."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from connectors.batch_queue import QUEUE_CHANGES
from connectors.contracts.sink import Batch
from connectors.errors import RetryableError
from connectors.postgres.sink import PostgresSink
from tests.contract.context import sink_context
from tests.integration.postgres_rows import (
    ITEMS,
    SHARE,
    SUBJECT,
    Log,
    batch,
    deliver,
    query,
    sink,
    spec,
    stored,
)
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def test_closing_does_not_wait_for_a_blocked_statement(database: Database) -> None:
    to = sink(database.dsn)
    deliver(to, [Log().put(1)])
    claim = to.claim(SHARE)
    with database.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE items")
        writer = to.open(claim)
        writer.write(batch(claim, Log(1).put(2)))
        until(lambda: query(database, "SELECT 1 FROM pg_locks WHERE NOT granted"))
        started = time.monotonic()
        writer.close()
        assert time.monotonic() - started < 5
    writer.close()
    assert [thread.name for thread in threading.enumerate() if "postgres-sink" in thread.name] == []
    again = to.claim(SHARE)
    assert again.offsets == {SUBJECT: 1}


@pytest.fixture
def blocked(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Somebody keeps the target's table locked."""
    deliver(sink(database.dsn), [Log().put(1)])
    with database.connect() as blocker:
        blocker.execute("BEGIN; LOCK TABLE items")
        yield blocker


def test_a_slow_target_holds_the_flow_back(
    database: Database, blocked: psycopg.Connection[tuple[object, ...]]
) -> None:
    to = sink(database.dsn)
    claim = to.claim(SHARE)
    log = Log(1)
    taken: list[int] = []

    with closing(to.open(claim)) as writer:

        def run() -> None:
            for _ in range(4):
                changes = [log.put(number) for number in range(QUEUE_CHANGES)]
                writer.write(batch(claim, *changes))
                taken.append(len(changes))
            writer.flush()

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: len(taken) == 2)
        time.sleep(0.3)  # that nothing more is taken shows in time only
        assert len(taken) == 2  # one under way, one waiting
        blocked.execute("COMMIT")
        thread.join(60)
    assert len(taken) == 4
    assert stored(database) == [(log.sequence,)]


def test_a_stopping_flow_does_not_wait_for_a_lock(
    database: Database,
    blocked: psycopg.Connection[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("connectors.stopping.GRACE_S", 0.3)
    stop = threading.Event()
    to = PostgresSink("warehouse", spec(database.dsn), sink_context(stop))
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, Log(1).put(2)))
        stop.set()
        with pytest.raises(RetryableError) as caught:
            writer.flush()
    assert caught.value.code == "postgres.interrupted"
    blocked.execute("COMMIT")
    assert to.claim(SHARE).offsets == {SUBJECT: 1}


def test_waiting_batches_become_one_transaction(
    database: Database, blocked: psycopg.Connection[tuple[object, ...]]
) -> None:
    to = sink(database.dsn)
    claim = to.claim(SHARE)
    log = Log(1)
    with closing(to.open(claim)) as writer:
        for number in range(100):
            writer.write(batch(claim, log.put(number)))
        blocked.execute("COMMIT")
        writer.flush()
    (transactions,) = query(database, "SELECT count(DISTINCT xmin::text) FROM items")
    assert transactions in [(1,), (2,), (3,)]
    assert query(database, "SELECT count(*) FROM items") == [(100,)]


def test_offsets_without_rows_are_written_lazily(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.postgres.target.writer.LAZY_S", 1.0)
    to = sink(database.dsn)
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        started = time.monotonic()
        for upto in range(1, 1000):
            writer.write(Batch(claim, [], upto))
        assert stored(database) == [(0,)]
        until(lambda: stored(database) == [(999,)])
        assert time.monotonic() - started > 0.9
        writer.write(Batch(claim, [], 1000))
        writer.flush()
        assert stored(database) == [(1000,)]
    assert ITEMS.name not in str(query(database, "SELECT relname FROM pg_stat_user_tables"))
