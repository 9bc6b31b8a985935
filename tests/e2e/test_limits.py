"""What is large: transactions, rows, tables, backlogs; and the memory that it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.e2e.deployment import Deployment
from tests.e2e.flows import SupervisedFlow, await_capture, both
from tests.e2e.items import agree, insert, wait_for
from tests.e2e.shop import Table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import PostgresFactory

pytestmark = pytest.mark.servers

MEGABYTE = 1024 * 1024
# Rows of more than a kilobyte each, beside the headers and the envelope of a message.
BACKLOG = 100_000


def insert_wide(deployment: Deployment, first: int, last: int) -> None:
    """One transaction of such rows."""
    deployment.run(
        "INSERT INTO items SELECT i, repeat(md5(i::text), 40)"
        " FROM generate_series(%s::bigint, %s) i",
        first,
        last,
    )


def await_pressure(deployment: Deployment) -> None:
    """Return once the capture flow takes nothing more from its server, though there is more."""
    sent = (
        "SELECT sent_lsn::text, sent_lsn < pg_current_wal_lsn() FROM pg_stat_replication"
        " WHERE application_name LIKE 'waxtap%'"
    )
    before: tuple[object, ...] | None = None
    since = time.monotonic()
    deadline = since + 60
    with psycopg.connect(deployment.source_dsn, autocommit=True) as connection:
        while time.monotonic() < since + 1:
            assert time.monotonic() < deadline, "the capture flow reads on and on"
            now = connection.execute(sent).fetchone()
            if now is None or now != before or not now[1]:
                before, since = now, time.monotonic()
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_transaction_of_a_million_rows_passes_with_flat_memory(deployment: Deployment) -> None:
    with SupervisedFlow(deployment, "capture/shop") as capture:
        await_capture(deployment)
        insert(deployment, 1, 1_000_000)
        wait_for(lambda: deployment.stream_sequence() >= 1_000_000, "the million", 400)
        peak = capture.run.peak_memory()
        assert not capture.unasked
    print(f"peak RSS of capture: {peak / MEGABYTE:.0f} MB")
    assert peak < 250 * MEGABYTE


@pytest.mark.slow
def test_memory_stays_flat_behind_a_target_that_stands_still(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> None:
    deployment = Deployment(
        postgres_factory(), postgres_factory(), nats_factory(), tmp_path, tables=("public.*",)
    )
    deployment.run("CREATE TABLE items (id bigint PRIMARY KEY, value text)")
    with both(deployment) as (capture, deliver):
        insert(deployment, 1, 10)
        agree(deployment)
        deployment.target.suspend()
        try:
            for first in range(11, BACKLOG, BACKLOG // 10):
                insert_wide(deployment, first, first + BACKLOG // 10 - 1)
            wait_for(lambda: deployment.stream_sequence() >= BACKLOG, "the backlog", 120)
            peaks = [flow.run.peak_memory() // MEGABYTE for flow in (capture, deliver)]
        finally:
            deployment.target.resume()
        agree(deployment, patience=120)
        peaks += [flow.run.peak_memory() // MEGABYTE for flow in (capture, deliver)]
        assert not capture.unasked
        assert not deliver.unasked
    print(f"peak RSS with a backlog of 150 MB, capture and deliver: {peaks} MB")
    assert max(peaks) < 250


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_memory_stays_flat_while_nats_is_down(deployment: Deployment) -> None:
    with SupervisedFlow(deployment, "capture/shop") as capture:
        await_capture(deployment)
        insert(deployment, 1, 10)
        wait_for(lambda: deployment.stream_sequence() > 10, "the first rows")
        deployment.nats.suspend()
        try:
            for first in range(11, BACKLOG, BACKLOG // 10):
                insert_wide(deployment, first, first + BACKLOG // 10 - 1)
            await_pressure(deployment)
        finally:
            deployment.nats.resume()
        wait_for(lambda: deployment.stream_sequence() >= BACKLOG, "the backlog", 120)
        peak = capture.run.peak_memory()
        assert not capture.unasked
    assert peak < 250 * MEGABYTE


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_row_of_50_megabytes_arrives_whole(deployment: Deployment) -> None:
    with both(deployment) as (capture, deliver):
        # one that compression makes small, one that it does not
        deployment.run("INSERT INTO items VALUES (1, repeat('compressible ', 4000000))")
        deployment.run(
            "INSERT INTO items SELECT 2, string_agg(sha512(i::text::bytea)::text, '')"
            " FROM generate_series(1, 400000) i"
        )
        deployment.run("INSERT INTO items VALUES (3, 'small')")
        deployment.run("UPDATE items SET id = id + 10")
        agree(deployment, patience=150)
        with psycopg.connect(deployment.target_dsn) as connection:
            rows = connection.execute("SELECT octet_length(value) FROM items ORDER BY id")
            sizes = [int(size) for (size,) in rows]
        assert min(sizes[:2]) > 50_000_000
        assert not capture.unasked
        assert not deliver.unasked
        print(
            "peak RSS with rows of 50 MB:"
            f" capture {capture.run.peak_memory() // MEGABYTE} MB,"
            f" deliver {deliver.run.peak_memory() // MEGABYTE} MB"
        )


def test_a_table_of_1600_columns_arrives_whole(deployment: Deployment) -> None:
    names = ["id", *(f"column_{number:04}" for number in range(1, 1600))]
    columns = ", ".join(f"{name} integer" for name in names)
    deployment.run(f"CREATE TABLE wide ({columns}, PRIMARY KEY (id))")
    wide = Table("public", "wide", ("id",))
    with both(deployment) as (capture, deliver):
        values = ", ".join(str(number) for number in range(1, 1601))
        deployment.run(f"INSERT INTO wide VALUES ({values})")
        deployment.run("INSERT INTO wide (id, column_1599) VALUES (2, 7), (3, NULL)")
        deployment.run("UPDATE wide SET column_0800 = -1 WHERE id = 1")
        agree_by_column(deployment, wide, names)
        assert not capture.unasked
        assert not deliver.unasked


def agree_by_column(deployment: Deployment, table: Table, names: list[str]) -> None:
    """As `agree`, for a table with more columns than a row expression takes."""

    def rows(dsn: str) -> list[tuple[object, ...]]:
        with psycopg.connect(dsn) as connection:
            try:
                return connection.execute(
                    sql.SQL("SELECT {} FROM {} ORDER BY id").format(
                        sql.SQL(", ").join(map(sql.Identifier, names)), table.identifier
                    )
                ).fetchall()
            except psycopg.errors.UndefinedTable:
                return []

    expected = rows(deployment.source_dsn)
    assert len(expected) == 3
    wait_for(lambda: rows(deployment.target_dsn) == expected, "agreement of all columns")
