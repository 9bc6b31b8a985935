"""The PostgreSQL source: what it captures, what it creates, confirms and drops."""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.changes import UNAVAILABLE
from connectors.postgres.conninfo import application_name
from tests.integration.postgres_capture import (
    after,
    envelope,
    ids,
    make_source,
    read_changes,
    read_until,
)
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from connectors.contracts.source import Chunk
    from tests.servers.postgres import Database

    Connection = psycopg.Connection[tuple[object, ...]]

pytestmark = pytest.mark.servers


@pytest.fixture
def server(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, value text)")
        yield connection


def confirmed(server: Connection, slot: str) -> int:
    row = server.execute(
        "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots"
        " WHERE slot_name = %s",
        [slot],
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


def published(server: Connection, publication: str) -> list[str]:
    rows = server.execute(
        "SELECT schemaname || '.' || tablename FROM pg_publication_tables"
        " WHERE pubname = %s ORDER BY 1",
        [publication],
    ).fetchall()
    return [str(name) for (name,) in rows]


@pytest.fixture
def name(database: Database) -> str:
    """A source's name of the test's own: slots are one namespace for the whole server."""
    return database.name


def test_the_first_chunk_anchors_the_stream_at_the_slot(
    database: Database, server: Connection, name: str
) -> None:
    with closing(make_source(database.dsn, name).open(None)) as reader:
        chunk = reader.read()
    assert chunk is not None
    assert chunk.changes == []
    assert chunk.checkpoint.position == ""
    assert set(chunk.checkpoint.state) == {"lsn", "system"}


def test_key_changes_toast_truncate_and_messages(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, note text)")
    server.execute("ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
    with closing(make_source(database.dsn, name).open(None)) as reader:
        server.execute("INSERT INTO docs VALUES (1, repeat('x', 20000), 'a')")
        server.execute("UPDATE docs SET note = 'b' WHERE id = 1")
        server.execute("UPDATE docs SET id = 2 WHERE id = 1")
        server.execute("DELETE FROM docs WHERE id = 2")
        server.execute("TRUNCATE items, docs")
        server.execute("SELECT pg_logical_emit_message(true, 'tag', 'inside')")
        server.execute("SELECT pg_logical_emit_message(false, 'tag', 'outside')")
        server.execute("INSERT INTO docs VALUES (3, '', '')")
        changes = read_changes(reader, 9)
    assert [change.op for change in changes] == ["c", "u", "u", "d", "t", "t", "m", "m", "c"]
    _, update, key_change, delete, *truncates, inside, outside, _ = changes
    assert update.unavailable == key_change.unavailable == ("body",)
    assert after(update) == {"id": 1, "body": UNAVAILABLE, "note": "b"}
    assert envelope(key_change)["before"] == {"id": 1}
    assert (key_change.key, delete.key) == ('{"id":2}', '{"id":2}')
    assert {change.table.name for change in truncates if change.table} == {"items", "docs"}
    assert envelope(inside)["message"] == {
        "transactional": True,
        "prefix": "tag",
        "content": b64encode(b"inside").decode(),
    }
    assert (inside.transaction != "", outside.transaction) == (True, "")
    positions = [change.position for change in changes]
    assert positions == sorted(positions)
    assert len(set(positions)) == len(positions)


def test_a_message_just_before_a_commit_has_a_position_of_its_own(
    database: Database, server: Connection, name: str
) -> None:
    with closing(make_source(database.dsn, name).open(None)) as reader:
        with server.transaction():
            server.execute("INSERT INTO items VALUES (1, '')")
            server.execute("SELECT pg_logical_emit_message(false, 'tag', 'outside')")
        message, change = read_changes(reader, 2)
    assert (message.op, change.op) == ("m", "c")
    assert message.position < change.position


def test_replica_identity_full_fills_unchanged_toast(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, note text)")
    server.execute("ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
    server.execute("ALTER TABLE docs REPLICA IDENTITY FULL")
    with closing(make_source(database.dsn, name).open(None)) as reader:
        server.execute("INSERT INTO docs VALUES (1, repeat('x', 20000), 'a')")
        server.execute("UPDATE docs SET note = 'b' WHERE id = 1")
        (_, update) = read_changes(reader, 2)
    assert update.unavailable == ()
    assert after(update) == {"id": 1, "body": "x" * 20000, "note": "b"}


def test_values_do_not_depend_on_the_servers_or_the_users_settings(
    database: Database, server: Connection, name: str
) -> None:
    server.execute(f"ALTER DATABASE {database.name} SET timezone = 'Asia/Tokyo'")
    server.execute(f"ALTER DATABASE {database.name} SET datestyle = 'German'")
    server.execute("CREATE TABLE kinds (id int PRIMARY KEY, at timestamptz, f float8, b bytea)")
    dsn = f"{database.dsn} options='-c extra_float_digits=-5 -c bytea_output=escape'"
    with closing(make_source(dsn, name).open(None)) as reader:
        server.execute(
            "INSERT INTO kinds VALUES (1, '2024-02-29 12:00:00+00', 0.1::float8 + 0.2, '\\x00ff')"
        )
        (change,) = read_changes(reader, 1)
    assert after(change) == {
        "id": 1,
        "at": "2024-02-29T12:00:00Z",
        "f": 0.30000000000000004,
        "b": "AP8=",
    }


def test_a_row_of_50_mb_arrives_whole(database: Database, server: Connection, name: str) -> None:
    size = 50 * 1024 * 1024
    with closing(make_source(database.dsn, name).open(None)) as reader:
        server.execute("INSERT INTO items VALUES (1, repeat('0123456789abcdef', %s))", [size // 16])
        server.execute("INSERT INTO items VALUES (2, 'small')")
        big, small = read_changes(reader, 2)
    assert after(big)["value"] == "0123456789abcdef" * (size // 16)
    assert after(small) == {"id": 2, "value": "small"}


def test_a_table_of_1600_columns(database: Database, server: Connection, name: str) -> None:
    columns = ", ".join(f"c{number} smallint" for number in range(1599))
    server.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})".encode())
    with closing(make_source(database.dsn, name).open(None)) as reader:
        server.execute("INSERT INTO wide (id, c0, c1598) VALUES (1, 10, 20)")
        (change,) = read_changes(reader, 1)
    row = after(change)
    assert len(row) == 1600
    assert (row["c0"], row["c1"], row["c1598"]) == (10, None, 20)


def test_partitions_appear_under_their_tables_name(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    server.execute("CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)")
    source = make_source(database.dsn, name, tables=["public.events"])
    with closing(source.open(None)) as reader:
        server.execute("CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)")
        server.execute("INSERT INTO events VALUES (1), (11)")
        changes = read_changes(reader, 2)
    assert [change.table.name for change in changes if change.table] == ["events", "events"]


def test_the_books_of_sinks_are_never_captured(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE SCHEMA waxtap")
    server.execute("CREATE TABLE waxtap.offsets (sink text PRIMARY KEY, seq bigint)")
    with closing(make_source(database.dsn, name).open(None)) as reader:
        assert published(server, f"waxtap_{name}") == ["public.items", "waxtap.offsets"]
        with server.transaction():
            server.execute("INSERT INTO items VALUES (1)")
            server.execute("INSERT INTO waxtap.offsets VALUES ('s', 1)")
        server.execute("INSERT INTO waxtap.offsets VALUES ('t', 1)")
        server.execute("INSERT INTO items VALUES (2)")
        changes = read_changes(reader, 2)
    assert ids(changes) == [1, 2]
    # The mark of the first transaction has moved to its last change that is left.
    assert [change.last for change in changes] == [True, True]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (["*.*"], ["other.b", "other.order_1", "public.items"]),
        (["other.*"], ["other.b", "other.order_1"]),
        (["other.order_*", '"public"."items"'], ["other.order_1", "public.items"]),
    ],
)
def test_the_publication_follows_the_patterns(
    database: Database, server: Connection, name: str, tables: list[str], expected: list[str]
) -> None:
    server.execute("CREATE SCHEMA other")
    server.execute("CREATE TABLE other.b (id int PRIMARY KEY)")
    server.execute("CREATE TABLE other.order_1 (id int PRIMARY KEY)")
    publication = f"waxtap_{name}"
    for first in (["*.*"], ["public.*"], ["public.items"]):
        make_source(database.dsn, name, tables=first).open(None).close()
        make_source(database.dsn, name, tables=tables).open(None).close()
        assert published(server, publication) == expected


def test_narrowed_patterns_leave_out_what_the_log_still_holds(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE TABLE extra (id int PRIMARY KEY)")
    make_source(database.dsn, name, tables=["public.items", "public.extra"]).open(None).close()
    server.execute("INSERT INTO extra VALUES (1)")
    server.execute("INSERT INTO items VALUES (2)")
    narrowed = make_source(database.dsn, name, tables=["public.items"])
    with closing(narrowed.open(None)) as reader:
        assert ids(read_changes(reader, 1)) == [2]


@pytest.mark.parametrize("superuser", [True, False])
def test_later_tables_are_picked_up(
    database: Database, server: Connection, name: str, superuser: bool
) -> None:
    dsn = database.dsn
    if not superuser:
        server.execute(f"CREATE ROLE {name} LOGIN REPLICATION")
        server.execute(f"GRANT CREATE ON DATABASE {name} TO {name}")
        server.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {name}")
        server.execute(f"ALTER TABLE items OWNER TO {name}")
        dsn = database.server.dsn(database.name, user=name)
    with closing(make_source(dsn, name, tables=["public.*"]).open(None)) as reader:
        server.execute(f"SET ROLE {name if not superuser else 'postgres'}")
        server.execute("CREATE TABLE later (id int PRIMARY KEY)")
        server.execute("CREATE TABLE keyless (id int)")
        until(lambda: "public.later" in published(server, f"waxtap_{name}"))
        server.execute("INSERT INTO later VALUES (7)")
        server.execute("INSERT INTO keyless VALUES (8)")
        server.execute("INSERT INTO items VALUES (9)")
        wanted = [7, 8, 9] if superuser else [7, 9]
        assert ids(read_changes(reader, len(wanted))) == wanted
        if not superuser:
            # Were it published, this would fail for want of a replica identity.
            server.execute("UPDATE keyless SET id = 1")
    server.execute("RESET ROLE")
    if not superuser:
        make_source(dsn, name).drop()
        server.execute(f"DROP OWNED BY {name} CASCADE")
        server.execute(f"DROP ROLE {name}")


def test_create_false_uses_what_exists_and_drops_none_of_it(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE TABLE extra (id int)")
    server.execute("CREATE PUBLICATION theirs FOR TABLE items")
    server.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"theirs_{name}"])
    source = make_source(
        database.dsn, name, create=False, publication="theirs", slot=f"theirs_{name}"
    )
    server.execute("INSERT INTO items VALUES (1)")
    with closing(source.open(None)) as reader:
        assert ids(read_changes(reader, 1)) == [1]
    assert (source.owned(), source.drop()) == ([], [])
    assert published(server, "theirs") == ["public.items"]
    assert confirmed(server, f"theirs_{name}") > 0


def test_a_publication_of_somebody_else_is_never_altered(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE TABLE extra (id int PRIMARY KEY)")
    server.execute("CREATE PUBLICATION theirs FOR TABLE items, extra")
    source = make_source(database.dsn, name, publication="theirs", tables=["public.items"])
    with closing(source.open(None)) as reader:
        server.execute("INSERT INTO extra VALUES (1)")
        server.execute("INSERT INTO items VALUES (2)")
        assert ids(read_changes(reader, 1)) == [2]
    assert published(server, "theirs") == ["public.extra", "public.items"]
    assert source.drop() == [f"slot waxtap_{name}"]
    assert published(server, "theirs") == ["public.extra", "public.items"]


def test_drop_removes_what_the_source_made_and_is_repeatable(
    database: Database, server: Connection, name: str
) -> None:
    source = make_source(database.dsn, name, slot=f"own_{name}")
    reader = source.open(None)
    # A session of the same source that still hangs does not stand in the way.
    made = [f"slot own_{name}", f"publication waxtap_{name}"]
    assert (source.owned(), source.drop()) == (made, made)
    reader.close()
    assert source.drop() == []
    assert server.execute("SELECT FROM pg_publication").fetchall() == []


def test_resuming_behind_what_was_confirmed(
    database: Database, server: Connection, name: str
) -> None:
    source = make_source(database.dsn, name)
    with closing(source.open(None)) as reader:
        server.execute("INSERT INTO items SELECT generate_series(1, 3)")
        chunk = read_until(reader, lambda seen: any(c.changes for c in seen))[-1]
        before = confirmed(server, f"waxtap_{name}")
        reader.confirm(chunk.checkpoint)
        read_until(reader, lambda _: confirmed(server, f"waxtap_{name}") > before)
    server.execute("INSERT INTO items VALUES (4)")
    with closing(source.open(chunk.checkpoint)) as reader:
        assert ids(read_changes(reader, 1)) == [4]


def test_an_idle_source_lets_the_server_drop_the_log_of_other_tables(
    database: Database, server: Connection, name: str
) -> None:
    server.execute("CREATE TABLE noise (id int PRIMARY KEY)")
    source = make_source(database.dsn, name, tables=["public.items"])
    with closing(source.open(None)) as reader:
        server.execute("INSERT INTO noise SELECT generate_series(1, 1000)")
        row = server.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint").fetchone()
        assert row is not None

        def confirm_all(chunks: list[Chunk]) -> bool:
            for chunk in chunks:
                reader.confirm(chunk.checkpoint)
            return confirmed(server, f"waxtap_{name}") >= int(str(row[0]))

        chunks = read_until(reader, confirm_all)
        assert all(chunk.changes == [] for chunk in chunks)


def test_an_older_session_is_ended_by_open_and_does_not_fight_back(
    database: Database, server: Connection, name: str
) -> None:
    source = make_source(database.dsn, name)
    with closing(source.open(None)) as old, closing(source.open(None)) as new:
        holder = server.execute("SELECT active_pid FROM pg_replication_slots").fetchall()
        # The fenced one repeats its checkpoint, which is how it learns that it was fenced.
        repeats = read_until(old, lambda seen: len(seen) >= 4)
        assert all(chunk.changes == [] for chunk in repeats)
        assert len({chunk.checkpoint.state["lsn"] for chunk in repeats}) == 1
        server.execute("INSERT INTO items VALUES (1)")
        assert ids(read_changes(new, 1)) == [1]
        assert server.execute("SELECT active_pid FROM pg_replication_slots").fetchall() == holder


def test_sessions_are_recognisable_and_leave_nothing_behind(
    database: Database, server: Connection, name: str
) -> None:
    def sessions() -> int:
        row = server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s",
            [application_name(name)],
        ).fetchone()
        assert row is not None
        return int(str(row[0]))

    reader = make_source(database.dsn, name).open(None)
    assert sessions() >= 2
    reader.close()
    until(lambda: sessions() == 0)


def test_url_dsn(database: Database, server: Connection, name: str) -> None:
    url = f"postgresql://postgres@127.0.0.1:{database.server.port}/{database.name}?sslmode=prefer"
    with closing(make_source(url, name).open(None)) as reader:
        server.execute("INSERT INTO items VALUES (1)")
        (change,) = read_changes(reader, 1)
    assert json.loads(change.key or "") == {"id": 1}
