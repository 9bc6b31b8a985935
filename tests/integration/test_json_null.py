"""A JSON null and an SQL NULL stay apart from the source's log to the target's rows."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from connectors.contracts.changes import Change, Column, Delivered
from connectors.jetstream.frames import encode_batch
from connectors.jetstream.stored import parse_headers
from tests.integration.postgres_capture import make_source, read_changes
from tests.integration.postgres_rows import ID, SUBJECT, Log, deliver, query, shape, sink

if TYPE_CHECKING:
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

DOCS = shape("docs", ID, Column("u", "text"), Column("d", "jsonb", "json"))


def delivered(number: int, change: Change) -> Delivered:
    """The change as a sink gets it, for a table of the schema `copy`."""
    assert change.table is not None
    frame = encode_batch([(SUBJECT, change)], batch="b", reply="r", expected=0, checkpoint="{}")
    headers = parse_headers(frame.split(b"\r\n", 1)[1].split(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert headers is not None
    return Delivered(
        number,
        SUBJECT,
        headers.position,
        headers.key,
        replace(change.table, schema="copy"),
        headers.transaction,
        headers.last,
        change.envelope,
        headers.unavailable,
        headers.json_nulls,
    )


@pytest.mark.parametrize("group", [1, 100], ids=["one by one", "collapsed"])
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_what_the_log_says_arrives(database: Database, identity: str, group: int) -> None:
    query(
        database,
        "CREATE TABLE docs (id int PRIMARY KEY, d jsonb, j json, big text, n int);"
        f"ALTER TABLE docs ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY {identity}",
    )
    big = "repeat('x', 20000)"
    writes = [
        f"INSERT INTO docs VALUES (1, 'null', ' null ', {big}, 0), (2, NULL, NULL, {big}, 0)",
        f"INSERT INTO docs VALUES (3, 'null', NULL, {big}, 0), (4, '{{}}', 'null', {big}, 0)",
        f"INSERT INTO docs VALUES (5, 'null', 'null', '', 0), (6, NULL, '{{}}', {big}, 0)",
        f"INSERT INTO docs VALUES (7, jsonb_build_array({big}), 'null', NULL, 0)",
        "UPDATE docs SET n = 1",
        "UPDATE docs SET d = NULL, j = 'null' WHERE id = 3",
        "UPDATE docs SET d = 'null', j = NULL WHERE id = 4",
        "UPDATE docs SET d = 'null' WHERE id = 7",
        "UPDATE docs SET id = 10 + id",
        "UPDATE docs SET n = 2 WHERE id > 14",
        "DELETE FROM docs WHERE id = 15",
    ]
    with closing(make_source(database.dsn, database.name).open(None)) as reader:
        for write in writes:
            query(database, write)
        changes = [delivered(n, change) for n, change in enumerate(read_changes(reader, 26), 1)]
    deliver(
        sink(database.dsn),
        *(changes[start : start + group] for start in range(0, len(changes), group)),
    )
    # the sink drops white space around a json value
    select = "SELECT id, d::text, trim(j::text), md5(big), n FROM {}.docs ORDER BY id"
    expected = query(database, select.format("public"))
    assert query(database, select.format("copy")) == expected
    assert [row[1:3] for row in expected] == [
        ("null", "null"),
        (None, None),
        (None, "null"),
        ("null", None),
        (None, "{}"),
        ("null", "null"),
    ]


def test_rows_that_are_written_one_by_one(database: Database) -> None:
    query(database, "CREATE TABLE docs (id bigint PRIMARY KEY, u text UNIQUE, d jsonb)")
    log = Log()

    def put(id_: int, u: str, *, json_null: bool) -> Delivered:
        nulls = ("d",) if json_null else ()
        return log.change("u", DOCS, {"id": id_, "u": u, "d": None}, json_nulls=nulls)

    deliver(
        sink(database.dsn),
        [put(1, "a", json_null=False), put(2, "b", json_null=True)],
        # collapsed, the unique value of one row would meet the other's
        [
            put(1, "c", json_null=False),
            put(2, "a", json_null=False),
            put(1, "b", json_null=True),
        ],
    )
    rows = query(database, "SELECT id, u, d::text FROM docs ORDER BY id")
    assert rows == [(1, "b", "null"), (2, "a", None)]


def test_a_moved_row_and_one_that_takes_an_earlier_value(database: Database) -> None:
    log = Log()
    earlier = {"id": 1, "u": "", "d": None}
    deliver(
        sink(database.dsn),
        [
            log.change("c", DOCS, earlier, json_nulls=("d",)),
            log.change("u", DOCS, {**earlier, "u": "x"}, missing=("d",)),
        ],
        [
            log.change("c", DOCS, {"id": 2, "u": "kept", "d": [1]}),
        ],
        [
            log.change(
                "u",
                DOCS,
                {"id": 3, "u": "", "d": None},
                before={"id": 2},
                missing=("u",),
                json_nulls=("d",),
            ),
            log.change("u", DOCS, {"id": 4, "u": "", "d": None}, missing=("u",), json_nulls=("d",)),
        ],
    )
    rows = query(database, "SELECT id, u, d::text FROM docs ORDER BY id")
    assert rows == [(1, "x", "null"), (3, "kept", "null"), (4, None, "null")]


@pytest.mark.parametrize(
    ("type_", "stored"), [("json", "null"), ("text", "null"), ("varchar(9)", None), ("int", None)]
)
def test_other_types_of_the_target(database: Database, type_: str, stored: str | None) -> None:
    query(database, f"CREATE TABLE docs (id bigint PRIMARY KEY, u text, d {type_})")
    row: dict[str, object] = {"id": 1, "u": "", "d": None}
    log = Log()
    nulls = log.change("c", DOCS, row, json_nulls=("d",))
    deliver(sink(database.dsn), [nulls, log.change("c", DOCS, {**row, "id": 2})])
    assert query(database, "SELECT d::text FROM docs ORDER BY id") == [(stored,), (None,)]


def test_a_json_null_in_the_key(database: Database) -> None:
    table = shape("keyed", Column("k", "jsonb", "json"), Column("n", "int", "number"), key=("k",))
    log = Log()

    def put(k: object, n: int, /, **old: object) -> Delivered:
        nulls = ("k",) if k is None else ()
        return log.change("u", table, {"k": k, "n": n}, before=old or None, json_nulls=nulls)

    def keyed() -> list[tuple[object, ...]]:
        return query(database, "SELECT k::text, n FROM keyed ORDER BY n")

    to = sink(database.dsn)
    deliver(to, [put(None, 1), put([None], 2)], [put(None, 3)])
    assert keyed() == [("[null]", 2), ("null", 3)]
    deliver(to, [put([4], 4, k=None)])
    assert keyed() == [("[null]", 2), ("[4]", 4)]
    deliver(to, [put(None, 5, k=[4])], [log.change("d", table, before={"k": None})])
    assert keyed() == [("[null]", 2)]
