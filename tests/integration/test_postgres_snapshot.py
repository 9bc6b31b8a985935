"""Snapshots of PostgreSQL tables that are taken while changes flow."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from msgspec import structs
from psycopg import sql
from psycopg.conninfo import make_conninfo

from connectors.contracts.source import Finite
from connectors.errors import ConfigError
from connectors.postgres.pgoutput.lsn import parse_lsn, stored_lsn
from connectors.postgres.snapshot import queries
from connectors.snapshot import read_ahead
from tests.integration.postgres_capture import (
    after,
    envelope,
    make_source,
    read_until,
)
from tests.integration.postgres_snapshots import done, run, take
from tests.integration.postgres_type_tables import builtin_types, create_type_tables
from tests.integration.tcp_relay import TcpRelay

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Chunk, SourceReader
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def went_on(progress: str | None, chunks: list[Chunk]) -> bool:
    return bool(chunks) and chunks[-1].checkpoint.state["snapshot"] != progress


def test_rows_that_were_there_come_once_and_then_the_changes(database: Database) -> None:
    run(
        database,
        "CREATE TABLE items (id bigint PRIMARY KEY, value text)",
        "INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 2500) i",
        "CREATE TABLE none (id int PRIMARY KEY)",
        "CREATE TABLE others (id int PRIMARY KEY)",
        "INSERT INTO others VALUES (1)",
        "CREATE TABLE empty (id int PRIMARY KEY)",
    )
    changes = take(database)
    assert [after(change) for change in changes] == [
        *({"id": i, "value": f"v{i}"} for i in range(1, 2501)),
        {"id": 1},
    ]
    assert {change.op for change in changes} == {"r"}
    marks = [envelope(change)["source"]["snapshot"] for change in changes]  # type: ignore[index]
    assert marks == ["first", *["true"] * 2499, "last"]
    positions = [change.position for change in changes]
    assert positions == sorted(set(positions))


KEYS = {
    "composite": ("a text, b int, c text, PRIMARY KEY (b, a)", "'k' || i % 7, i, 'v' || i"),
    "uuid": ("id uuid PRIMARY KEY, c text", "md5(i::text)::uuid, 'v'"),
    "text": ("id text PRIMARY KEY", r"(ARRAY['É', $q$e'$q$, E'\\\t', 'E'])[i % 4 + 1] || i"),
    "collated": ('id text COLLATE "und-x-icu" PRIMARY KEY', "chr(97 + i % 26) || md5(i::text)"),
    "varchar": ("id varchar(40) PRIMARY KEY", "md5(i::text)"),
    "char": ("id char(40) PRIMARY KEY", "md5(i::text)"),
    "number": ("id numeric PRIMARY KEY", "i / 7.0"),
    "float": ("id float8 PRIMARY KEY", "i / 7.0::float8"),
    "moment": ("id timestamptz PRIMARY KEY", "'2026-01-01'::timestamptz + i * interval '1 ms'"),
    "bytes": ("id bytea PRIMARY KEY", "decode(md5(i::text), 'hex')"),
    "list": ("id int[] PRIMARY KEY", "ARRAY[i % 10, i]"),
    "day": ("id date, n int, PRIMARY KEY (id, n)", "'2026-01-01'::date + i % 3, i"),
    "moods": ("m mood, n int, PRIMARY KEY (m, n)", "(ARRAY['sad','ok'])[1 + i % 2]::mood, i"),
    "domain": ("id positive PRIMARY KEY", "i"),
    "blind": ("k other.citext, n int, PRIMARY KEY (k, n)", "('K' || i % 5)::other.citext, i"),
    'quo"ted': ('"Id ""x" int PRIMARY KEY, "%s" text', "i, 'v'"),
    "identity": ("a int, b int NOT NULL", "i, -i"),
    "full": ("id int PRIMARY KEY, c text", "i, 'v'"),
    "keyless": ("c text", "'v' || i % 100"),
    "parted": ("id int, c text, PRIMARY KEY (id)", "i, 'v'"),
    "parted keyless": ("id int, c text", "i, 'v'"),
    "generated": ("id int PRIMARY KEY, d int GENERATED ALWAYS AS (id * 2) STORED, e int", None),
}


@pytest.fixture
def kinds(database: Database) -> Database:
    """A table of 300 rows for each kind of key."""
    run(
        database,
        "CREATE SCHEMA other",
        "CREATE EXTENSION IF NOT EXISTS citext SCHEMA other",
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    )
    with database.connect() as connection:
        for name, (columns, values) in KEYS.items():
            table = sql.Identifier(name)
            parted = " PARTITION BY RANGE (id)" if name.startswith("parted") else ""
            connection.execute(f"CREATE TABLE {table.as_string()} ({columns}){parted}".encode())
            if parted:
                for place, bounds in enumerate([(1, 100), (100, 101), (101, 5000)]):
                    connection.execute(
                        f'CREATE TABLE "{name} {place}" PARTITION OF {table.as_string()}'
                        f" FOR VALUES FROM ({bounds[0]}) TO ({bounds[1]})".encode()
                    )
            if name == "identity":
                connection.execute(
                    "CREATE UNIQUE INDEX tells ON identity (b);"
                    "ALTER TABLE identity REPLICA IDENTITY USING INDEX tells"
                )
            if "keyless" in name or name == "full":
                connection.execute(
                    f"ALTER TABLE {table.as_string()} REPLICA IDENTITY FULL".encode()
                )
            if name == "parted keyless":
                for place in range(3):
                    connection.execute(
                        f'ALTER TABLE "{name} {place}" REPLICA IDENTITY FULL'.encode()
                    )
            rows = "(id, e) SELECT i, i" if values is None else f"SELECT {values}"
            connection.execute(
                f"INSERT INTO {table.as_string()} {rows} FROM generate_series(1, 300) i".encode()
            )
    return database


def test_every_kind_of_key_in_chunks_of_every_size(
    kinds: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGES", 2)
    counts: dict[str, list[Counter[str]]] = {}
    for rows, readers in ((50, 1), (16384, 1), (50, 3)):
        monkeypatch.setattr(read_ahead, "ROWS", rows)
        seen: dict[str, Counter[str]] = {name: Counter() for name in KEYS}
        for change in take(kinds, name=f"s{rows}_{readers}", snapshot_readers=readers):
            assert change.table is not None
            seen[change.table.name][change.key or str(after(change))] += 1
        for name, counter in seen.items():
            counts.setdefault(name, []).append(counter)
    for name, counters in counts.items():
        assert [counter.total() for counter in counters] == [300] * 3, name
        assert counters[0] == counters[1] == counters[2], name
        if "keyless" not in name:
            assert len(counters[0]) == 300, name


def test_a_row_looks_the_same_from_table_and_log(database: Database) -> None:
    run(database, "CREATE TABLE first (id int PRIMARY KEY)")
    with database.connect() as session, closing(make_source(database.dsn, "a").open(None)) as log:
        create_type_tables(session, builtin_types(session))
        session.execute(
            """CREATE TYPE mood AS ENUM ('sad', 'ok');
               CREATE DOMAIN money_in AS numeric(10,2);
               CREATE TYPE pair AS (a int, b text);
               CREATE TABLE others (id int PRIMARY KEY, m mood, ms mood[], d money_in, p pair,
                                    ps pair[], r regclass, g int GENERATED ALWAYS AS (1) STORED);
               ALTER TABLE others REPLICA IDENTITY FULL;
               INSERT INTO others VALUES (1, 'ok', '{sad,ok}', 1.5, '(1,"x,\\"\\\\")',
                                          ARRAY['(1,"x")'::pair, NULL], 'others');
               INSERT INTO others VALUES (2)"""
        )
        (expected,) = session.execute("SELECT pg_current_wal_lsn()").fetchone() or ("",)
        goal = parse_lsn(str(expected))
        chunks = read_until(
            log, lambda seen: bool(seen) and stored_lsn(seen[-1].checkpoint) >= goal
        )
    inserted = {look(change): change for chunk in chunks for change in chunk.changes}
    copied = {look(change): change for change in take(database, name="b")}
    assert len(inserted) > 300
    assert inserted.keys() == copied.keys()
    for identity, change in inserted.items():
        other = copied[identity]
        assert change.table is not None
        assert other.table is not None
        assert change.table == structs.replace(other.table, source="a")
        assert change.key == other.key
        assert change.json_nulls == other.json_nulls
        assert row_of(change) == row_of(other)


def look(change: Change) -> tuple[str, str | None]:
    assert change.table is not None
    return change.table.name, change.key


def row_of(change: Change) -> bytes:
    """The row as it is written in the envelope."""
    return change.envelope.partition(b',"source":{"version"')[0]


def test_columns_and_rows_that_are_not_published_are_not_read(database: Database) -> None:
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY, secret text, value int)",
        "INSERT INTO items SELECT i, 's', i % 3 FROM generate_series(1, 300) i",
        "CREATE PUBLICATION theirs FOR TABLE items (id, value) WHERE (id > 100)",
        "SELECT pg_create_logical_replication_slot('theirs_slot', 'pgoutput')",
    )
    changes = take(database, create=False, publication="theirs", slot="theirs_slot")
    assert [after(change) for change in changes] == [
        {"id": i, "value": i % 3} for i in range(101, 301)
    ]
    run(database, "SELECT pg_drop_replication_slot('theirs_slot')")


def test_goes_on_where_it_was_after_every_chunk(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "ROWS", 100)
    run(
        database,
        "CREATE TABLE a (x text, y int, PRIMARY KEY (y, x))",
        "INSERT INTO a SELECT 'x' || i, i / 7 FROM generate_series(1, 950) i",
        "CREATE TABLE b (id int)",
        "ALTER TABLE b REPLICA IDENTITY FULL",
        "INSERT INTO b SELECT generate_series(1, 450)",
        "CREATE TABLE c (id int PRIMARY KEY)",
    )
    checkpoint: Checkpoint | None = None
    seen: list[Change] = []
    while checkpoint is None or '"done":true' not in checkpoint.state["snapshot"]:
        source = make_source(database.dsn, snapshot="initial")
        with closing(source.open(checkpoint)) as reader:
            progress = None if checkpoint is None else checkpoint.state["snapshot"]
            chunks = read_until(reader, partial(went_on, progress))
            seen += [change for chunk in chunks for change in chunk.changes]
            reader.confirm(chunks[-1].checkpoint)
        checkpoint = chunks[-1].checkpoint
    assert len(seen) == 1400
    assert len({change.position for change in seen}) == 1400
    assert [after(c)["id"] for c in seen if c.key is None] == list(range(1, 451))


@pytest.mark.parametrize("mode", ["never", "initial"])
def test_a_source_that_ran_without_a_snapshot_takes_none(database: Database, mode: str) -> None:
    run(database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with closing(make_source(database.dsn, snapshot="never").open(None)) as reader:
        (first,) = read_until(reader, bool)
    assert "snapshot" not in first.checkpoint.state
    with closing(make_source(database.dsn, snapshot=mode).open(first.checkpoint)) as reader:
        run(database, "INSERT INTO t VALUES (2)")
        changes = read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
    assert [after(change) for chunk in changes for change in chunk.changes] == [{"id": 2}]


def test_the_right_to_read_is_asked_for_at_the_start(database: Database) -> None:
    run(
        database,
        "CREATE TABLE t (id int PRIMARY KEY)",
        'CREATE TABLE "T 2" (id int PRIMARY KEY)',
        "DROP ROLE IF EXISTS reads_little",
        "CREATE ROLE reads_little LOGIN REPLICATION",
        "CREATE PUBLICATION theirs FOR ALL TABLES",
        "SELECT pg_create_logical_replication_slot('little_slot', 'pgoutput')",
    )
    dsn = make_conninfo(database.dsn, user="reads_little")
    source = make_source(
        dsn, create=False, publication="theirs", slot="little_slot", snapshot="initial"
    )
    with pytest.raises(ConfigError) as caught:
        source.open(None)
    assert caught.value.code == "postgres.select_right"
    assert 'GRANT SELECT ON public.t, public."T 2" TO reads_little' in caught.value.cure.replace(
        '"public"', "public"
    ).replace('"t"', "t").replace('"reads_little"', "reads_little")
    assert [error.code for error in source.check()] == ["postgres.select_right"]
    run(database, 'GRANT SELECT ON t, "T 2" TO reads_little')
    assert source.check() == []
    run(
        database,
        "SELECT pg_drop_replication_slot('little_slot')",
        "DROP OWNED BY reads_little",
        "DROP ROLE reads_little",
    )


def test_wide_rows_are_cut_by_their_size(database: Database) -> None:
    run(
        database,
        "CREATE TABLE wide (id int PRIMARY KEY, value text)",
        "ALTER TABLE wide ALTER value SET STORAGE EXTERNAL",
        "INSERT INTO wide SELECT i, repeat(md5(i::text), 8192) FROM generate_series(1, 120) i",
    )
    source = make_source(database.dsn, snapshot="initial")
    with closing(source.open(None)) as reader:
        chunks = read_until(reader, done)
    assert [after(change)["id"] for c in chunks for change in c.changes] == list(range(1, 121))
    assert max(sum(len(each.envelope) for each in c.changes) for c in chunks) <= 8 * 1024 * 1024


def test_several_readers_divide_tables_and_ranges_among_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "ROWS", 400)
    run(
        database,
        "CREATE TABLE a (id int PRIMARY KEY, v text)",
        "CREATE TABLE b (id int, v text)",
        "ALTER TABLE b REPLICA IDENTITY FULL",
        *(f"ALTER TABLE {name} ALTER v SET STORAGE EXTERNAL" for name in "ab"),
        *(
            f"INSERT INTO {name} SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i"
            for name in "ab"
        ),
        "VACUUM ANALYZE a",
        "VACUUM ANALYZE b",
    )
    seconds: list[float] = []
    with TcpRelay(database.server.port, rate=3_000_000) as relay:
        dsn = f"{database.dsn} port={relay.port}"
        for readers in (1, 4):
            source = make_source(dsn, f"r{readers}", snapshot="initial", snapshot_readers=readers)
            with closing(source.open(None)) as reader:
                begun = time.monotonic()
                chunks = read_until(reader, done)
                seconds.append(time.monotonic() - begun)
            assert [after(change)["id"] for c in chunks for change in c.changes] == [
                *range(1, 3001),
                *range(1, 3001),
            ]
    # The network alone takes 2 s a table and reader.
    assert seconds[0] > 2
    assert seconds[1] < seconds[0] / 2


def test_a_table_that_is_dropped_meanwhile_is_left_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "ROWS", 100)
    run(
        database,
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int PRIMARY KEY)",
        "CREATE TABLE c (id int PRIMARY KEY)",
        "INSERT INTO a SELECT generate_series(1, 1000)",
        "INSERT INTO b SELECT generate_series(1, 1000)",
        "INSERT INTO c SELECT generate_series(1, 10)",
    )
    with closing(make_source(database.dsn, snapshot="initial").open(None)) as reader:
        chunks = read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
        run(database, "DROP TABLE b")
        chunks += read_until(reader, done)
    names = Counter(change.table.name for c in chunks for change in c.changes if change.table)
    assert names == {"a": 1000, "c": 10}


def ended(reader: SourceReader) -> bool:
    return isinstance(reader, Finite) and reader.ended


def test_only_a_snapshot_ends_and_leaves_nothing_on_the_server(database: Database) -> None:
    run(database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    source = make_source(database.dsn, snapshot="only")
    with closing(source.open(None)) as reader:
        chunks = read_until(reader, done)
        run(database, "INSERT INTO t VALUES (3)")
        assert reader.read() is None
        assert ended(reader) is False
        reader.confirm(chunks[-1].checkpoint)
        assert reader.read() is None
        assert ended(reader) is True
    assert [after(change)["id"] for chunk in chunks for change in chunk.changes] == [1, 2]
    with database.connect() as connection:
        found = connection.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
            " UNION ALL SELECT pubname FROM pg_publication"
        ).fetchall()
    assert found == []
    again = source.open(chunks[-1].checkpoint)
    assert again.read() is None
    assert ended(again)


def test_row_level_security_is_told_at_the_start(database: Database) -> None:
    run(
        database,
        "CREATE TABLE t (id int PRIMARY KEY)",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "DROP ROLE IF EXISTS sees_little",
        "CREATE ROLE sees_little LOGIN REPLICATION",
        "GRANT SELECT ON t TO sees_little",
        "CREATE PUBLICATION theirs FOR TABLE t",
        "SELECT pg_create_logical_replication_slot('veiled_slot', 'pgoutput')",
    )
    dsn = make_conninfo(database.dsn, user="sees_little")
    source = make_source(
        dsn, create=False, publication="theirs", slot="veiled_slot", snapshot="initial"
    )
    with pytest.raises(ConfigError) as caught:
        source.open(None)
    assert caught.value.code == "postgres.row_security"
    assert 'ALTER ROLE "sees_little" BYPASSRLS' in caught.value.cure
    run(database, "SELECT pg_drop_replication_slot('veiled_slot')")


def test_a_keyless_table_that_is_written_anew_meanwhile_is_read_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "ROWS", 100)
    run(
        database,
        "CREATE TABLE t (id int)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "INSERT INTO t SELECT generate_series(1, 2000)",
        # so that rows move where a rewrite puts them together
        "DELETE FROM t WHERE id % 2 = 0",
    )
    with closing(make_source(database.dsn, snapshot="initial").open(None)) as reader:
        chunks = read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
        run(database, "VACUUM FULL t")
        chunks += read_until(reader, done)
    seen = {after(change)["id"] for chunk in chunks for change in chunk.changes}
    assert seen == set(range(1, 2001, 2))
