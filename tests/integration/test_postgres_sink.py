"""How the PostgreSQL sink applies changes to a real target."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.changes import Column
from connectors.errors import PermanentError
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
    stored,
)

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def test_the_last_state_of_each_row_arrives(database: Database) -> None:
    log = Log()
    deliver(
        sink(database.dsn),
        [log.put(1, "x"), log.put(2, "y"), log.put(1, "z"), log.delete(2), log.put(3, None)],
    )
    assert items(database) == [(1, "z", ""), (3, None, "")]
    assert stored(database) == [(5,)]


def test_a_key_change_leaves_no_old_row(database: Database) -> None:
    log = Log()
    deliver(
        sink(database.dsn),
        [log.put(1), log.put(2)],
        [log.change("u", ITEMS, {"id": 9, "a": "n", "b": ""}, before={"id": 1})],
    )
    assert items(database) == [(2, "", ""), (9, "n", "")]


def test_an_old_image_under_full_identity_is_no_key_change(database: Database) -> None:
    log = Log()
    row: dict[str, object] = {"id": 1, "a": "old", "b": ""}
    deliver(
        sink(database.dsn), [log.put(1)], [log.change("u", ITEMS, {**row, "a": "n"}, before=row)]
    )
    assert items(database) == [(1, "n", "")]


def test_unavailable_values_stay_as_they_are(database: Database) -> None:
    log = Log()
    big = "x" * 10_000
    deliver(
        sink(database.dsn),
        [log.put(1, big, "p"), log.put(2, "small", big)],
        [
            log.change("u", ITEMS, {"id": 1, "a": "", "b": "q"}, missing=("a",)),
            log.change("u", ITEMS, {"id": 2, "a": "s", "b": ""}, missing=("b",)),
            log.change("u", ITEMS, {"id": 3, "a": "new", "b": ""}, missing=("b",)),
        ],
    )
    assert items(database) == [(1, big, "q"), (2, "s", big), (3, "new", None)]


def test_an_unavailable_value_may_be_declared_not_null(database: Database) -> None:
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text NOT NULL, b text)")
    log = Log()
    deliver(
        sink(database.dsn),
        [log.put(1, "kept")],
        [log.change("u", ITEMS, {"id": 1, "a": "", "b": "q"}, missing=("a",))],
    )
    assert items(database) == [(1, "kept", "q")]


def test_a_moved_row_keeps_its_unavailable_values(database: Database) -> None:
    log = Log()
    deliver(
        sink(database.dsn),
        [log.put(1, "kept")],
        [
            moved(log, 1, 2, "q"),
            moved(log, 2, 3, "r"),
            moved(log, 7, 8, "s"),
        ],
    )
    assert items(database) == [(3, "kept", "r"), (8, None, "s")]


def moved(log: Log, old: int, new: int, b: str) -> Delivered:
    row: dict[str, object] = {"id": new, "a": "", "b": b}
    return log.change("u", ITEMS, row, before={"id": old}, missing=("a",))


def test_a_row_that_moves_replaces_the_one_at_its_new_key(database: Database) -> None:
    log = Log()
    deliver(
        sink(database.dsn),
        [log.put(1, "kept"), log.put(2, "other")],
        [moved(log, 1, 2, "q"), moved(log, 5, 2, "r")],
    )
    assert items(database) == [(2, "kept", "r")]


def test_truncates_go_together_and_keep_what_follows(database: Database) -> None:
    query(
        database,
        "CREATE TABLE parent (id bigint PRIMARY KEY);"
        "CREATE TABLE child (id bigint PRIMARY KEY REFERENCES parent)",
    )
    parent, child = shape("parent", ID), shape("child", ID)
    log = Log()
    deliver(
        sink(database.dsn),
        [log.change("c", parent, {"id": 1}), log.change("c", child, {"id": 1})],
        [
            log.change("c", parent, {"id": 2}),
            log.change("t", parent),
            log.change("t", child),
            log.change("c", parent, {"id": 3}),
        ],
    )
    assert query(database, "SELECT * FROM parent") == [(3,)]
    assert query(database, "SELECT * FROM child") == []


def test_rows_come_after_the_rows_they_refer_to(database: Database) -> None:
    query(
        database,
        "CREATE TABLE parent (id bigint PRIMARY KEY);"
        "CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent)",
    )
    parent = shape("parent", ID)
    child = shape("child", ID, Column("parent", "bigint", "number"))
    log = Log()
    deliver(
        sink(database.dsn),
        [
            log.change("c", parent, {"id": 1}),
            log.change("c", child, {"id": 1, "parent": 1}),
            log.change("c", parent, {"id": 2}),
            log.change("u", child, {"id": 1, "parent": 2}),
            log.delete(1, parent),
        ],
    )
    assert query(database, "SELECT * FROM child") == [(1, 2)]


def test_a_cascading_delete_takes_no_row_that_went_elsewhere(database: Database) -> None:
    query(
        database,
        "CREATE TABLE parent (id bigint PRIMARY KEY);"
        "CREATE TABLE child (id bigint PRIMARY KEY,"
        " parent bigint REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, big text)",
    )
    parent = shape("parent", ID)
    child = shape("child", ID, Column("parent", "bigint", "number"), Column("big", "text"))
    log = Log()
    deliver(
        sink(database.dsn),
        [
            log.change("c", parent, {"id": 1}),
            log.change("c", child, {"id": 1, "parent": 1, "big": "kept"}),
            log.change("c", child, {"id": 2, "parent": 1, "big": "kept too"}),
        ],
        [
            log.change("c", parent, {"id": 2}),
            log.change("u", child, {"id": 1, "parent": 2, "big": ""}, missing=("big",)),
            log.change("u", child, {"id": 2, "parent": 2, "big": ""}, missing=("big",)),
            log.delete(1, parent),
            log.change("u", parent, {"id": 3}, before={"id": 2}),
        ],
    )
    assert query(database, "SELECT * FROM parent") == [(3,)]
    assert query(database, "SELECT * FROM child ORDER BY id") == [
        (1, 3, "kept"),
        (2, 3, "kept too"),
    ]


def test_order_matters_where_rows_swap_a_unique_value(database: Database) -> None:
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text UNIQUE, b text)")
    log = Log()
    deliver(
        sink(database.dsn),
        [log.put(1, "one"), log.put(2, "two")],
        [log.put(1, None), log.put(2, "one"), log.put(1, "two")],
    )
    assert items(database) == [(1, "two", ""), (2, "one", "")]


def test_numbers_that_are_equal_but_written_apart_are_one_row(database: Database) -> None:
    table = shape("n", Column("id", "numeric"), Column("v", "text"))
    log = Log()
    rows = [log.change("c", table, {"id": text, "v": text}) for text in ("1.0", "1.00")]
    deliver(sink(database.dsn), rows)
    assert query(database, "SELECT id::text, v FROM n") == [("1.0", "1.00")]


def test_deferrable_constraints_are_checked_at_the_end(database: Database) -> None:
    query(
        database,
        "CREATE TABLE tree (id bigint PRIMARY KEY, up bigint REFERENCES tree"
        " DEFERRABLE INITIALLY IMMEDIATE)",
    )
    tree = shape("tree", ID, Column("up", "bigint", "number"))
    log = Log()
    leaf = log.change("c", tree, {"id": 1, "up": 2})
    deliver(sink(database.dsn), [leaf, log.change("c", tree, {"id": 2, "up": None})])
    assert query(database, "SELECT count(*) FROM tree") == [(2,)]
    error = refused(database, log.change("c", tree, {"id": 3, "up": 99}))
    assert error.code == "postgres.constraint"
    assert "tree_up_fkey" in str(error)
    assert stored(database) == [(2,)]


def test_a_refused_row_is_named_without_its_values(database: Database) -> None:
    log = Log()
    deliver(sink(database.dsn), [log.put(1)])
    query(database, "ALTER TABLE items ADD CONSTRAINT short CHECK (length(a) < 5)")
    error = refused(database, log.put(2), log.put(3, "s3cret-value"), log.put(4))
    assert error.code == "postgres.constraint"
    assert error.where == "public.items"
    assert "sequence 3" in error.message
    assert "short" in error.message
    assert "s3cret-value" not in str(error)
    assert items(database) == [(1, "", "")]
    assert stored(database) == [(1,)]


def test_a_batch_before_the_refused_one_is_stored(database: Database) -> None:
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text CHECK (a <> 'bad'), b text)")
    to = sink(database.dsn)
    claim = to.claim(SHARE)
    log = Log()
    with closing(to.open(claim)) as writer:
        with pytest.raises(PermanentError):  # noqa: PT012 - whichever call finds out
            for text in ("good", "good", "bad", "good"):
                writer.write(batch(claim, log.put(log.sequence + 1, text)))
            writer.flush()
        with pytest.raises(PermanentError):
            writer.flush()
    assert items(database) == [(1, "good", ""), (2, "good", "")]
    assert stored(database) == [(2,)]


def test_triggers_see_the_search_path_of_the_role(database: Database) -> None:
    query(
        database,
        "CREATE TABLE seen (id bigint); CREATE TABLE items (id bigint PRIMARY KEY, a text, b text);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NEW; END $$;"
        "CREATE TRIGGER note AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION note()",
    )
    deliver(sink(database.dsn), [Log().put(1)])
    assert query(database, "SELECT * FROM seen") == [(1,)]


def test_a_table_of_1600_columns(database: Database) -> None:
    names = [f"c{number}" for number in range(1599)]
    table = shape("wide", ID, *(Column(name, "smallint", "number") for name in names))
    row: dict[str, object] = {"id": 1, **dict.fromkeys(names, 7)}
    log = Log()
    deliver(
        sink(database.dsn),
        [log.change("c", table, row)],
        [log.change("u", table, {**row, "c0": 8}, missing=("c5",)), log.delete(2, table)],
        [log.change("u", table, {**row, "id": 3}, before={"id": 1}, missing=("c5",))],
    )
    assert query(database, "SELECT id, c0, c5, c1598 FROM wide") == [(3, 7, 7, 7)]


def test_a_row_of_50_mb(database: Database) -> None:
    big = 'x"\\é\n' * (50_000_000 // 6)
    log = Log()
    deliver(sink(database.dsn), [log.put(1, big), log.put(2, "small")])
    assert query(
        database,
        "SELECT octet_length(a), md5(a) = md5(repeat(left(a, 5), 8333333)) FROM items WHERE id = 1",
    ) == [(len(big.encode()), True)]
