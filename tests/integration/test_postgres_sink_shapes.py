"""A PostgreSQL target follows tables whose shape changes in mid-stream."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from connectors.contracts.changes import Column, TableSchema
from connectors.contracts.sink import Batch
from tests.integration.postgres_rows import (
    ID,
    SHARE,
    Log,
    deliver,
    query,
    refused,
    refused_by,
    shape,
    sink,
)
from tests.integration.streams import Background, until

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

BIG = 3_000_000_000


def typed(type_: str, json: str = "string", *, dialect: str = "postgresql") -> TableSchema:
    return replace(shape("t", ID, Column("v", type_, json)), dialect=dialect)


def put(log: Log, table: TableSchema, id_: int, value: object) -> Delivered:
    return log.change("c", table, {"id": id_, "v": value})


def type_of(database: Database, column: str = "v", table: str = "t") -> object:
    ((type_,),) = query(
        database,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        f" WHERE attrelid = 'public.{table}'::regclass AND attname = '{column}'",
    )
    return type_


@pytest.mark.parametrize(
    ("dialect", "json", "steps"),
    [
        (
            "postgresql",
            "number",
            [("smallint", 1), ("integer", 70_000), ("bigint", BIG), ("integer", 2)],
        ),
        (
            "mysql",
            "number",
            [("tinyint", 1), ("int", 70_000), ("int unsigned", BIG), ("bigint unsigned", BIG**2)],
        ),
        ("postgresql", "string", [("numeric(4,1)", "1.5"), ("numeric(9,3)", "12345.125")]),
        ("postgresql", "string", [("character varying(2)", "ab"), ("text", "ab" * 99)]),
        ("mariadb", "string", [("char(2)", "ab"), ("varchar(9)", "123456789"), ("text", "x" * 99)]),
        ("mysql", "string", [("decimal(4,1)", "1.5"), ("decimal(9,3)", "12345.125")]),
        ("mysql", "string", [("enum", "new"), ("varchar(20)", "paid")]),
        (
            "mysql",
            "string",
            [("datetime(0)", "2026-11-24T20:52:49"), ("datetime(6)", "2026-11-24T20:52:49.123456")],
        ),
    ],
)  # fmt: skip
def test_a_wider_type_is_followed(
    database: Database, dialect: str, json: str, steps: list[tuple[str, object]]
) -> None:
    log = Log()
    tables = [typed(type_, json, dialect=dialect) for type_, _ in steps]
    deliver(
        sink(database.dsn),
        *(
            [put(log, table, number, value), put(log, tables[0], -number - 1, steps[0][1])]
            for number, (table, (_, value)) in enumerate(zip(tables, steps, strict=True))
        ),
    )
    rows = query(database, "SELECT v FROM t WHERE id >= 0 ORDER BY id")
    found = [str(value).replace(" ", "T") for (value,) in rows]
    expected = [str(value) for _, value in steps]
    # a number with more digits behind the point is the same number
    assert [word.rstrip("0") for word in found] == [word.rstrip("0") for word in expected]


def test_several_columns_in_one_batch_with_changes_before_and_after(database: Database) -> None:
    old = shape("t", ID, Column("n", "real", "number"), Column("w", "character varying(3)"))
    new = shape("t", ID, Column("n", "double precision", "number"), Column("w", "text"))
    log = Log()
    row: dict[str, object] = {"id": 1, "n": 1.5, "w": "abc"}
    deliver(
        sink(database.dsn),
        [
            log.change("c", old, row),
            log.change("u", new, {"id": 1, "n": 1.0000000001, "w": "abcd"}),
            log.change("c", new, {"id": 2, "n": 2.5, "w": "x" * 50}),
            log.change("d", new, before={"id": 2}),
        ],
    )
    assert query(database, "SELECT id, n, w FROM t") == [(1, 1.0000000001, "abcd")]


def test_what_does_not_fit_is_refused_with_the_statement_that_cures_it(database: Database) -> None:
    log = Log()
    to = sink(database.dsn)
    deliver(to, [put(log, typed("integer", "number"), 1, 7)])
    text = typed("text")
    # a value that fits is stored, whatever the source's type is now
    deliver(to, [put(log, text, 2, "8")])
    bad = put(log, text, 3, "nine")
    error = refused(database, bad)
    assert (error.code, error.where, error.sequence) == ("postgres.data", "public.t", bad.sequence)
    assert "column v is integer, and the source's needs text" in error.message
    statement, _, _ = error.cure.partition(";")
    assert statement == 'ALTER TABLE "public"."t" ALTER COLUMN "v" TYPE text USING "v"::text'
    query(database, statement)
    deliver(to, [bad])
    assert query(database, "SELECT v FROM t ORDER BY id") == [("7",), ("8",), ("nine",)]


def test_a_narrower_type_leaves_the_target_as_it_is(database: Database) -> None:
    log = Log()
    deliver(
        sink(database.dsn),
        [put(log, typed("bigint", "number"), 1, BIG)],
        [put(log, typed("smallint", "number"), 2, 7)],
    )
    assert type_of(database) == "bigint"
    assert query(database, "SELECT v FROM t ORDER BY id") == [(BIG,), (7,)]


def test_ignore_stores_what_fits(database: Database) -> None:
    log = Log()
    deliver(sink(database.dsn), [put(log, typed("integer", "number"), 1, 1)])
    wide = typed("bigint", "number")
    deliver(sink(database.dsn, schema_changes="ignore"), [put(log, wide, 2, 2)])
    error = refused(database, put(log, wide, 3, BIG), schema_changes="ignore")
    assert "column v is integer, and the source's needs bigint" in error.message
    assert type_of(database) == "integer"


def test_refuse_tells_the_statement(database: Database) -> None:
    log = Log()
    deliver(sink(database.dsn), [put(log, typed("integer", "number"), 1, 1)])
    late = put(log, typed("bigint", "number"), 2, 2)
    error = refused(database, late, schema_changes="refuse")
    assert error.code == "postgres.narrow_column"
    statement = error.cure.partition(", or ")[2]
    assert statement == 'ALTER TABLE "public"."t" ALTER COLUMN "v" TYPE bigint'
    query(database, statement)
    deliver(sink(database.dsn, schema_changes="refuse"), [late])


def test_what_the_server_does_not_alter_stays_and_the_rest_goes_on(database: Database) -> None:
    log = Log()
    to = sink(database.dsn)
    deliver(to, [put(log, typed("integer", "number"), 1, 1)])
    query(database, "CREATE VIEW seen AS SELECT v FROM t")
    wide = typed("bigint", "number")
    deliver(to, [put(log, wide, 2, 2)])
    error = refused(database, put(log, wide, 3, BIG))
    assert "column v is integer" in error.message


def test_a_large_table_is_not_rewritten(database: Database) -> None:
    log = Log()
    to = sink(database.dsn, max_rewrite=0)
    table = shape("t", ID, Column("v", "integer", "number"), Column("w", "character varying(3)"))
    deliver(to, [log.change("c", table, {"id": 1, "v": 1, "w": "abc"})])
    wide = shape("t", ID, Column("v", "bigint", "number"), Column("w", "text"))
    deliver(to, [log.change("c", wide, {"id": 2, "v": 2, "w": "abcd"})])
    assert (type_of(database), type_of(database, "w")) == ("integer", "text")


def test_a_reader_in_the_way_is_waited_for(database: Database) -> None:
    log = Log()
    to = sink(database.dsn)
    deliver(to, [put(log, typed("integer", "number"), 1, 1)])
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT FROM t")
        work = Background(lambda: deliver(to, [put(log, typed("bigint", "number"), 2, BIG)]))
        until(
            lambda: (
                query(
                    database,
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND query LIKE 'ALTER%'",
                )
                != []
            )
        )
        reader.execute("COMMIT")
        work.result()
    assert query(database, "SELECT v FROM t WHERE id = 2") == [(BIG,)]


def test_not_null_of_a_column_that_the_source_dropped(database: Database) -> None:
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text, b text NOT NULL)")
    narrow = shape("items", ID, Column("a", "text"))
    log = Log()
    to = sink(database.dsn)
    deliver(
        to,
        [log.put(1, "x", "y")],
        [log.change("u", narrow, {"id": 1, "a": "z"}), log.change("c", narrow, {"id": 2, "a": ""})],
    )
    assert query(database, "SELECT id, a, b FROM items ORDER BY id") == [
        (1, "z", "y"),
        (2, "", None),
    ]
    # one that the source has is the owner's own
    query(database, "UPDATE items SET b = ''; ALTER TABLE items ALTER COLUMN b SET NOT NULL")
    error = refused(database, log.put(3, "x", None))
    assert (error.code, "column b" in error.message) == ("postgres.constraint", True)
    error = refused(database, log.change("c", narrow, {"id": 4, "a": ""}), schema_changes="ignore")
    assert "column b" in error.message


def keyed(*key: str, columns: tuple[str, ...] = ("id", "region")) -> TableSchema:
    return shape("t", *(Column(name, "text") for name in columns), key=key)


def at(change: Delivered, position: str) -> Delivered:
    return change._replace(position=position)


def test_a_changed_key_is_followed(database: Database) -> None:
    log = Log()
    to = sink(database.dsn)
    old, new = keyed("id"), keyed("id", "region")
    deliver(
        to,
        [at(log.change("c", old, {"id": "1", "region": "eu"}), "1")],
        [
            at(log.change("c", new, {"id": "1", "region": "us"}), "2"),
            at(log.change("u", new, {"id": "1", "region": "eu"}), "3"),
        ],
    )
    # a column that the source dropped was a key once: new rows do not have it
    renamed = keyed("number", columns=("number", "region"))
    error = refused_by(to, at(log.change("c", renamed, {"number": "9", "region": "x"}), "4"))
    assert error.code == "postgres.key_mismatch"
    assert "null values" in error.message
    query(database, "UPDATE t SET number = id || region")
    query(database, error.cure)
    deliver(to, [at(log.change("c", renamed, {"number": "9", "region": "x"}), "4")])
    assert query(database, "SELECT id, region, number FROM t ORDER BY number") == [
        ("1", "eu", "1eu"),
        ("1", "us", "1us"),
        (None, "x", "9"),
    ]


@pytest.mark.parametrize("mode", [{}, {"transactions": True}, {"parallelism": 2}])
def test_a_key_is_made_of_values_that_came_right_before(
    database: Database, mode: dict[str, object]
) -> None:
    log = Log()
    old, new = keyed("id"), keyed("id", "region")
    rows = [at(log.change("c", old, {"id": str(n), "region": None}), "1") for n in range(300)]
    rows += [at(log.change("u", old, {"id": str(n), "region": "eu"}), "1") for n in range(300)]
    rows += [at(log.change("c", new, {"id": str(n), "region": "us"}), "2") for n in range(300)]
    to = sink(database.dsn, **mode)
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(Batch(claim, rows, log.sequence, log.sequence))
        writer.flush()
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM t") == [(600, 300)]


def test_a_late_change_of_the_former_key_does_not_bring_it_back(database: Database) -> None:
    log = Log()
    to = sink(database.dsn)
    old, new = keyed("id"), keyed("id", "region")
    late = at(log.change("u", old, {"id": "1", "region": "late"}), "2")
    deliver(to, [at(log.change("c", old, {"id": "1", "region": "eu"}), "1")])
    deliver(to, [at(log.change("c", new, {"id": "1", "region": "us"}), "3")])
    error = refused_by(to, late._replace(sequence=log.sequence + 1))
    assert error.code == "postgres.key_mismatch"
    assert "older than the key" in error.message
    # but the source itself may go back, if the data allow it
    log.sequence += 1
    deliver(to, [at(log.change("d", new, before={"id": "1", "region": "us"}), "4")])
    deliver(to, [at(log.change("u", old, {"id": "1", "region": "again"}), "5")])
    assert query(database, "SELECT id, region FROM t") == [("1", "again")]


@pytest.mark.parametrize("mode", [{"transactions": True}, {"parallelism": 2}, {"mode": "append"}])
def test_in_every_mode(database: Database, mode: dict[str, object]) -> None:
    log = Log()
    to = sink(database.dsn, **mode)
    claim = to.claim(SHARE)
    old, new = typed("integer", "number"), typed("bigint", "number")
    with closing(to.open(claim)) as writer:
        for changes in (
            [put(log, old, n, n) for n in range(300)],
            [*(put(log, old, 300 + n, n) for n in range(300)), put(log, new, 900, BIG)],
            [put(log, new, 1000 + n, BIG + n) for n in range(300)],
        ):
            end = changes[-1].sequence
            writer.write(Batch(claim, changes, end, end))
        writer.flush()
    assert query(database, "SELECT count(*), max(v) FROM t") == [(901, BIG + 299)]
