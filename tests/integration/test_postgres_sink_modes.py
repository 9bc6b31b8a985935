"""The PostgreSQL sink's further ways: other tables, histories, rows that are marked as deleted."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.changes import Column
from tests.integration.postgres_rows import (
    ID,
    ITEMS,
    SHARE,
    Log,
    batch,
    deliver,
    items,
    query,
    refused,
    shape,
    sink,
)
from tests.integration.tcp_relay import TcpRelay
from tests.integration.test_postgres_sink_failures import port, through

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

KEYLESS = shape("events", Column("what", "text"), key=())


def timed(change: Delivered, milliseconds: int) -> Delivered:
    """The change as one that was committed at this time."""
    envelope = msgspec.json.decode(change.envelope)
    envelope["source"] = {"ts_ms": milliseconds}
    return change._replace(envelope=msgspec.json.encode(envelope), position=f"{change.sequence:08}")


def test_rows_go_to_the_tables_that_are_named(database: Database) -> None:
    to = sink(
        database.dsn, schema="dw", tables={"public.items": 'crm."My Items"', "public.b": "bees"}
    )
    log = Log()
    b, c = shape("b", ID), shape("c", ID)
    deliver(to, [log.put(1, "x"), log.change("c", b, {"id": 1}), log.change("c", c, {"id": 2})])
    deliver(to, [log.put(2), log.delete(1), log.change("t", b)])
    assert query(database, 'SELECT id FROM crm."My Items"') == [(2,)]
    assert query(database, "SELECT id FROM dw.bees") == []
    assert query(database, "SELECT id FROM dw.c") == [(2,)]
    assert query(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
    error = refused(database, log.put(1), create_tables=False, tables={"public.items": "no.where"})
    assert error.where == "no.where"


def test_two_tables_may_go_into_one(database: Database) -> None:
    query(
        database,
        "CREATE TABLE parents (id bigint PRIMARY KEY);"
        "CREATE TABLE items (id bigint PRIMARY KEY, a text, b text, p bigint REFERENCES parents)",
    )
    parents, other = shape("parents", ID), shape("items_2", *ITEMS.columns, Column("p", "bigint"))
    log = Log()
    rows = [
        log.change("c", other, {"id": 2, "a": "two", "b": "", "p": 7}),
        log.put(1, "one"),
        log.change("c", parents, {"id": 7}),
    ]
    deliver(sink(database.dsn, tables={"public.items_2": "public.items"}), rows)
    assert items(database) == [(1, "one", ""), (2, "two", "")]


def test_a_history_has_a_row_for_each_change(database: Database) -> None:
    to, log = sink(database.dsn, mode="append"), Log(10)
    wide = shape("items", *ITEMS.columns, Column("doc", "jsonb", "json"))
    whole: dict[str, object] = {"id": 2, "a": "y", "b": "", "doc": {"n": 1.50}}
    changes = [
        log.put(1, "x"),
        log.change("u", wide, whole, before={"id": 1}, missing=("b",)),
        log.change("u", wide, {**whole, "doc": None}, json_nulls=("doc",)),
        log.delete(2),
        log.change("t", ITEMS),
        log.change("m", ITEMS)._replace(table=None),
        log.change("d", ITEMS, before={"id": 3, "a": "z", "b": None}),
    ]
    deliver(to, [timed(change, 1_700_000_000_123) for change in changes])
    columns = "_cdc_sequence, _cdc_op, id, a, b, doc::text, _cdc_before::text, _cdc_unavailable"
    assert query(database, f"SELECT {columns} FROM items ORDER BY _cdc_sequence") == [
        (11, "c", 1, "x", "", None, None, None),
        (12, "u", 2, "y", None, '{"n": 1.5}', '{"id":1}', ["b"]),
        (13, "u", 2, "y", "", "null", None, None),
        (14, "d", 2, None, None, None, None, None),
        (15, "t", None, None, None, None, None, None),
        (17, "d", 3, "z", None, None, None, None),
    ]
    about = "_cdc_source, _cdc_position, _cdc_transaction, _cdc_committed_at::text"
    assert query(database, f"SELECT {about} FROM items WHERE _cdc_sequence = 17") == [
        ("shop", "00000017", "1", "2023-11-14 22:13:20.123+00")
    ]


def test_a_history_needs_no_key(database: Database) -> None:
    log = Log()
    changes = [log.change("c", KEYLESS, {"what": "a"}) for _ in range(3)]
    gone = log.change("d", KEYLESS, before={"what": "a"})
    deliver(sink(database.dsn, mode="append"), [*changes, gone])
    assert query(database, "SELECT _cdc_op, count(*) FROM events GROUP BY 1 ORDER BY 1") == [
        ("c", 3),
        ("d", 1),
    ]


@pytest.mark.parametrize("lost", [b"COMMIT", b"BEGIN", b"waxtap.offsets AS o"])
def test_a_history_has_no_row_twice(lost: bytes, database: Database) -> None:
    log = Log()
    with TcpRelay(port(database.dsn)) as proxy:
        to = sink(through(proxy, database.dsn), mode="append")
        claim = to.claim(SHARE)
        with closing(to.open(claim)) as writer:
            for _ in range(8):
                proxy.lose_answer(lost)
                writer.write(batch(claim, log.put(1)))
                writer.flush()
            writer.replay([log.put(1)])
            writer.replay([log.put(1)._replace(sequence=log.sequence - 1)])
    assert proxy.lost
    assert query(database, "SELECT count(*), count(DISTINCT _cdc_sequence) FROM items") == [(9, 9)]


def test_a_history_that_exists_may_have_what_its_owner_likes(database: Database) -> None:
    query(
        database,
        "CREATE TABLE items (id bigint, a text NOT NULL CHECK (a <> 'poison'), _cdc_op text,"
        " n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
    )
    log = Log()
    deliver(sink(database.dsn, mode="append", schema_changes="ignore"), [log.put(1, "x")])
    assert query(database, "SELECT id, a, _cdc_op, n FROM items") == [(1, "x", "c", 1)]
    error = refused(database, log.put(2), mode="append", schema_changes="refuse")
    assert "_cdc_source" in error.message
    query(database, error.cure.partition("or ")[2].partition("or ")[2])
    error = refused(database, log.put(2), log.put(3, "poison"), log.put(4), mode="append")
    assert error.sequence == log.sequence - 1


def alive(database: Database) -> list[tuple[object, ...]]:
    times = "extract(epoch FROM _deleted_at)::int"
    return query(database, f"SELECT id, a, {times} FROM items ORDER BY id")


def test_a_deleted_row_stays_and_is_marked(database: Database) -> None:
    to, log = sink(database.dsn, deletes="soft"), Log()
    deliver(to, [log.put(1, "x"), log.put(2, "y")], [timed(log.delete(1), 5000), log.delete(9)])
    assert alive(database) == [(1, "x", 5), (2, "y", None)]
    # the first time counts; a row that comes back lives
    deliver(to, [timed(log.delete(1), 6000)])
    assert alive(database) == [(1, "x", 5), (2, "y", None)]
    deliver(to, [log.put(1, "again")])
    assert alive(database) == [(1, "again", None), (2, "y", None)]
    # made and deleted at once
    deliver(to, [log.put(3, "z"), timed(log.delete(3), 7000), log.put(4), log.delete(4)])
    assert alive(database)[2:] == [(3, "z", 7), (4, "", 0)]


def test_a_truncate_marks_what_lives(database: Database) -> None:
    to, log = sink(database.dsn, deletes="soft"), Log()
    other = shape("others", ID)
    deliver(to, [log.put(1), log.put(2), timed(log.delete(2), 3000)])
    truncates = [timed(log.change("t", ITEMS), 4000), timed(log.change("t", other), 4000)]
    deliver(to, [log.change("c", other, {"id": 1}), *truncates, log.put(5)])
    assert alive(database) == [(1, "", 4), (2, "", 3), (5, "", None)]
    assert query(database, "SELECT count(*) FROM others WHERE _deleted_at IS NOT NULL") == [(1,)]


def test_a_change_of_key_moves_the_row_under_soft_deletes(database: Database) -> None:
    to, log = sink(database.dsn, deletes="soft"), Log()
    deliver(to, [log.put(1, "x", "big"), log.put(2, "old"), timed(log.delete(2), 3000)])
    row: dict[str, object] = {"id": 2, "a": "moved", "b": ""}
    deliver(to, [log.change("u", ITEMS, row, before={"id": 1}, missing=("b",))])
    assert alive(database) == [(2, "moved", None)]
    assert items(database) == [(2, "moved", "big")]


def test_the_mark_is_added_to_a_table_that_exists(database: Database) -> None:
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text, b text)")
    query(database, "INSERT INTO items VALUES (1, 'x', '')")
    log = Log(5)
    for policy in ("ignore", "refuse"):
        error = refused(database, log.delete(1), deletes="soft", schema_changes=policy)
        assert error.code == "postgres.no_column"
        assert 'ADD COLUMN IF NOT EXISTS "_deleted_at" timestamptz' in error.cure
    deliver(sink(database.dsn, deletes="soft"), [timed(log.delete(1), 5000)])
    assert alive(database) == [(1, "x", 5)]
    query(database, "ALTER TABLE items ADD gone timestamp")
    changes = [log.put(2), timed(log.delete(2), 9000)]
    deliver(sink(database.dsn, deletes="soft", deleted_column="gone"), changes)
    assert query(database, "SELECT gone::text FROM items WHERE id = 2") == [
        ("1970-01-01 00:00:09",)
    ]
