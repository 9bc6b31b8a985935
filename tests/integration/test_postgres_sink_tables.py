"""How the PostgreSQL sink makes and checks the target's tables."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.changes import Column
from connectors.errors import ConfigError
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

if TYPE_CHECKING:
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def test_a_table_without_key_is_refused_with_its_cure(database: Database) -> None:
    error = refused(database, Log().change("c", shape("t", ID, key=()), {"id": 1}))
    assert error.code == "postgres.no_key"
    assert "primary key" in error.cure


def test_a_target_whose_key_differs_is_refused_with_its_cure(database: Database) -> None:
    query(database, "CREATE TABLE items (id bigint, a text, b text)")
    error = refused(database, Log().put(1))
    assert error.code == "postgres.key_mismatch"
    query(database, error.cure)
    deliver(sink(database.dsn), [Log().put(1)])


def test_the_cure_replaces_a_primary_key_that_differs(database: Database) -> None:
    query(
        database, 'CREATE TABLE items (id bigint, a text, b text, CONSTRAINT "A b" PRIMARY KEY (a))'
    )
    query(database, refused(database, Log().put(1)).cure)
    deliver(sink(database.dsn), [Log().put(1)])


def test_a_further_unique_index_is_as_good_as_a_primary_key(database: Database) -> None:
    query(database, "CREATE TABLE items (id bigint, a text PRIMARY KEY, b text)")
    query(database, "CREATE UNIQUE INDEX ON items (id)")
    deliver(sink(database.dsn), [Log().put(1)])


def test_a_partial_or_deferred_index_is_no_key(database: Database) -> None:
    query(
        database,
        "CREATE TABLE items (id bigint UNIQUE DEFERRABLE, a text, b text);"
        "CREATE UNIQUE INDEX ON items (id) WHERE id > 5; CREATE UNIQUE INDEX ON items (abs(id))",
    )
    assert refused(database, Log().put(1)).code == "postgres.key_mismatch"


def test_a_view_in_the_way_is_refused(database: Database) -> None:
    query(database, "CREATE VIEW items AS SELECT 1::bigint AS id, '' AS a, '' AS b")
    assert refused(database, Log().put(1)).code == "postgres.not_a_table"


def test_missing_tables_may_be_demanded(database: Database) -> None:
    error = refused(database, Log().put(1), create_tables=False)
    assert error.code == "postgres.no_table"
    query(database, error.cure.partition(": ")[2].partition(": ")[2])
    deliver(sink(database.dsn, create_tables=False), [Log().put(1)])
    assert items(database) == [(1, "", "")]


WIDER = shape("items", *ITEMS.columns, Column('new %s "c" {}', "numeric(5,1)"))


def test_new_columns_are_added(database: Database) -> None:
    log = Log()
    row: dict[str, object] = {"id": 2, "a": "", "b": "", 'new %s "c" {}': "1.5"}
    deliver(sink(database.dsn), [log.put(1), log.change("c", WIDER, row), log.put(3)])
    assert query(database, 'SELECT id, "new %s ""c"" {}"::text FROM items ORDER BY id') == [
        (1, None),
        (2, "1.5"),
        (3, None),
    ]


def test_new_columns_may_be_ignored(database: Database) -> None:
    log = Log()
    row: dict[str, object] = {"id": 2, "a": "", "b": "", 'new %s "c" {}': "1.5"}
    deliver(
        sink(database.dsn, schema_changes="ignore"), [log.put(1)], [log.change("c", WIDER, row)]
    )
    assert items(database) == [(1, "", ""), (2, "", "")]


def test_new_columns_may_be_refused(database: Database) -> None:
    log = Log()
    deliver(sink(database.dsn), [log.put(1)])
    row: dict[str, object] = {"id": 2, "a": "", "b": "", 'new %s "c" {}': "1.5"}
    error = refused(database, log.change("c", WIDER, row), schema_changes="refuse")
    assert error.code == "postgres.no_column"
    assert 'ADD COLUMN IF NOT EXISTS "new %s ""c"" {}" numeric(5,1)' in error.cure


def test_a_column_dropped_in_the_source_stays(database: Database) -> None:
    narrow = shape("items", ID, Column("a", "text"))
    log = Log()
    deliver(
        sink(database.dsn),
        [log.put(1, "x", "y")],
        [log.change("u", narrow, {"id": 1, "a": "z"}), log.change("c", narrow, {"id": 2, "a": ""})],
    )
    assert items(database) == [(1, "z", "y"), (2, "", None)]


def test_a_table_dropped_under_a_writer_is_made_again(database: Database) -> None:
    to = sink(database.dsn)
    claim = to.claim(SHARE)
    log = Log()
    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, log.put(1)))
        writer.flush()
        query(database, "DROP TABLE items")
        writer.write(batch(claim, log.put(2)))
        writer.flush()
    assert items(database) == [(2, "", "")]


def test_generated_and_identity_columns_of_the_target(database: Database) -> None:
    query(
        database,
        "CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text,"
        " b text GENERATED ALWAYS AS (upper(a)) STORED)",
    )
    log = Log()
    deliver(sink(database.dsn), [log.put(1, "x")], [log.put(1, "y", "ignored")])
    assert items(database) == [(1, "y", "Y")]


def test_types_of_the_target_own_are_used(database: Database) -> None:
    query(
        database,
        "CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('sad', 'glad');"
        "CREATE DOMAIN shop.short AS varchar(5);"
        "CREATE TABLE items (id integer PRIMARY KEY, a shop.mood, b shop.short)",
    )
    deliver(sink(database.dsn), [Log().put(1, "glad", "abc")])
    assert items(database) == [(1, "glad", "abc")]


def test_types_that_only_the_source_has_become_text(database: Database) -> None:
    table = shape(
        "t",
        ID,
        Column("mood", "shop.mood", "string", portable=False),
        Column("moods", "shop.mood[]", "array", portable=False),
        Column("odd", "no_such_type"),
        schema="My Shop",
    )
    row: dict[str, object] = {"id": 1, "mood": "sad", "moods": [["sad", None]], "odd": "x"}
    deliver(sink(database.dsn), [Log().change("c", table, row)])
    assert query(database, 'SELECT mood, moods, odd FROM "My Shop".t') == [
        ("sad", [["sad", None]], "x")
    ]


def test_a_type_name_is_never_more_than_that(database: Database) -> None:
    table = shape("t", ID, Column("v", "text); DROP TABLE waxtap.claims; --"))
    refused(database, Log().change("c", table, {"id": 1, "v": ""}))
    assert query(database, "SELECT count(*) FROM waxtap.claims") == [(1,)]


def test_a_role_with_the_documented_rights_is_enough(database: Database) -> None:
    role = f"least_{database.name}"
    with database.connect() as connection:
        try:
            for statement in (
                f"CREATE ROLE {role} LOGIN",
                "CREATE SCHEMA shop",
                f"GRANT CREATE ON DATABASE {database.name} TO {role}",
                f"GRANT USAGE, CREATE ON SCHEMA shop TO {role}",
            ):
                connection.execute(statement.encode())
            dsn = f"{database.dsn} user={role}"
            table = shape("t", ID, schema="shop")
            log = Log()
            deliver(sink(dsn), [log.change("c", table, {"id": 1})], [log.delete(1, table)])
            # and with the tables already there
            for statement in (
                f"REVOKE CREATE ON DATABASE {database.name} FROM {role}",
                "REASSIGN OWNED BY " + role + " TO CURRENT_USER",
                f"REVOKE ALL ON SCHEMA shop FROM {role}",
            ):
                connection.execute(statement.encode())
            with pytest.raises(ConfigError) as caught:
                sink(dsn).claim(SHARE)
            assert caught.value.code == "postgres.rights"
            for statement in (
                f"GRANT USAGE ON SCHEMA waxtap, shop TO {role}",
                f"GRANT SELECT, INSERT, UPDATE ON waxtap.claims, waxtap.offsets TO {role}",
                f"GRANT SELECT, INSERT, DELETE ON waxtap.replayed TO {role}",
            ):
                connection.execute(statement.encode())
            error_log = Log(log.sequence)
            # not a matter of the change: nothing is put aside for it
            with pytest.raises(ConfigError) as caught:
                deliver(sink(dsn), [error_log.change("c", table, {"id": 2})])
            assert caught.value.code == "postgres.denied"
            connection.execute(
                f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON shop.t TO {role}".encode()
            )
            more = Log(error_log.sequence)
            deliver(
                sink(dsn),
                [more.change("c", table, {"id": 3}), more.delete(4, table)],
                [more.change("t", table)],
            )
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_wrong_password_or_dsn_is_a_matter_of_configuration(database: Database) -> None:
    for dsn, code in (
        ("nonsense s3cret", "postgres.dsn"),
        (f"{database.dsn} dbname=no_such_database password=s3cret", "postgres.login"),
    ):
        with pytest.raises(ConfigError) as caught:
            sink(dsn).claim(SHARE)
        assert caught.value.code == code
        assert "s3cret" not in str(caught.value)


def test_the_session_can_be_recognised(database: Database) -> None:
    to = sink(database.dsn)
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, Log().put(1)))
        writer.flush()
        assert query(
            database,
            "SELECT application_name FROM pg_stat_activity AS a JOIN waxtap.claims AS c"
            " ON a.pid = c.backend_pid AND a.backend_start = c.backend_start",
        ) == [("waxtap/warehouse",)]
