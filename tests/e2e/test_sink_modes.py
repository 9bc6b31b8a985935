"""The PostgreSQL sink's further ways with whole flows, killed again and again."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.flows import SupervisedFlow, await_capture, both
from tests.e2e.items import agree, insert, wait_for
from tests.e2e.shop import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers

KILLS = 5


def configure(deployment: Deployment, **settings: object) -> None:
    sink = {"type": "postgres", "dsn": "${WAREHOUSE_DSN}", "topics": ["db.*"]}
    deployment.more = {"sinks": {"warehouse": sink | settings}}
    deployment.write_configuration()


def target_row(deployment: Deployment, text: str) -> tuple[int, ...] | None:
    """One row of the target; None while its table does not exist."""
    with psycopg.connect(deployment.target_dsn, autocommit=True) as connection:
        return row_of(connection, text)


def row_of(connection: psycopg.Connection[tuple[object, ...]], text: str) -> tuple[int, ...] | None:
    """As `target_row`."""
    try:
        row = connection.execute(text.encode()).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return None if row is None else tuple(int(str(value or 0)) for value in row)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_history_has_each_change_once_whatever_is_killed(
    deployment: Deployment, parallelism: int
) -> None:
    """Upserts would hide a change that counts twice; here each is a row."""
    configure(deployment, schema="history", mode="append", parallelism=parallelism)
    rows, counted = 1000, "SELECT count(*), count(DISTINCT _cdc_sequence) FROM history.items"

    def delivered() -> int:
        return (target_row(deployment, counted) or (0,))[0]

    def has_more(than: int) -> bool:
        return delivered() > than

    with both(deployment) as (capture, deliver):
        for number in range(KILLS):
            before = delivered()
            insert(deployment, number * rows + 1, (number + 1) * rows)
            deployment.run("UPDATE items SET value = value || '!' WHERE id % 3 = 0")
            deployment.run("DELETE FROM items WHERE id % 10 = 7")
            wait_for(partial(has_more, before), "progress")
            (capture if number == 2 else deliver).kill(wipe=number % 2 == 0)
        inserts, deletes = KILLS * rows, KILLS * rows // 10
        # a row that is there from the n-th round on is updated in each that follows, unless it is
        # deleted in its first
        thirds = [i for i in range(1, KILLS * rows + 1) if i % 3 == 0]
        rounds = [1 if i % 10 == 7 else KILLS - (i - 1) // rows for i in thirds]
        updates = sum(rounds)
        total = inserts + updates + deletes
        wait_for(partial(has_more, total - 1), f"{total} changes")
    assert target_row(deployment, counted) == (total, total)
    by_op = " ".join(f"count(*) FILTER (WHERE _cdc_op = '{op}')," for op in "cud").rstrip(",")
    found = target_row(deployment, f"SELECT {by_op} FROM history.items")
    assert found == (inserts, updates, deletes)


ACCOUNTS = Table("public", "accounts", ("id",))
ENTRIES = Table("public", "entries", ("id",))


def test_whole_transactions_are_all_that_is_ever_seen(deployment: Deployment) -> None:
    """Money moves between accounts, many at once: the sum is 0 in every state of the source."""
    configure(deployment, transactions=True)
    deployment.run("CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint)")
    deployment.run("CREATE TABLE entries (id bigserial PRIMARY KEY, amount bigint)")
    sums = (
        "SELECT (SELECT sum(balance) FROM accounts), (SELECT sum(amount) FROM entries),"
        " (SELECT count(*) FROM accounts), (SELECT count(*) FROM entries)"
    )
    writing = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE application_name = 'waxtap/warehouse' AND backend_xid IS NOT NULL"
    )
    seen: set[tuple[int, ...]] = set()
    over = threading.Event()

    def under_way(before: int) -> bool:
        return bool(target_row(deployment, writing)) or deployment.delivered_sequence() > before

    def watch() -> None:
        with psycopg.connect(deployment.target_dsn, autocommit=True) as connection:
            while not over.wait(0.01):
                row = row_of(connection, sums)
                if row is not None:
                    seen.add(row)

    with (
        SupervisedFlow(deployment, "capture/shop"),
        SupervisedFlow(deployment, "deliver/warehouse") as deliver,
    ):
        await_capture(deployment)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for text in transfers():
                before = deployment.delivered_sequence()
                deployment.run(text)
                if text.startswith("WITH large"):
                    wait_for(partial(under_way, before), "a part of it in the target")
                    deliver.kill()
            agree(deployment, ACCOUNTS, ENTRIES)
        finally:
            over.set()
            watcher.join(30)
    assert len(seen) > 2
    assert {row[:2] for row in seen} == {(0, 0)}
    assert {row[2] for row in seen} <= {0, 2500}


def transfers() -> Iterator[str]:
    """Transactions of all sizes, each over both tables, large ones first and last."""
    yield (
        "WITH large AS (INSERT INTO entries (amount) SELECT (i % 2) * 2 - 1"
        " FROM generate_series(1, 2500) i)"
        " INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 2500) i"
    )
    for number in range(KILLS):
        for small in range(10):
            one, other = 1 + small * 7 + number, 2001 + small * 11
            yield (
                f"WITH small AS (INSERT INTO entries (amount) VALUES ({one}), (-{one}))"
                f" UPDATE accounts SET balance = balance +"
                f" CASE id WHEN {one} THEN {one} ELSE -{one} END WHERE id IN ({one}, {other})"
            )
        yield (
            "WITH large AS (INSERT INTO entries (amount) SELECT (i % 2) * 2 - 1"
            " FROM generate_series(1, 1200) i)"
            " UPDATE accounts SET balance = balance + (id % 2) * 2 - 1"
        )
