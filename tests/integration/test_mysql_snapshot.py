"""Snapshots of MySQL and MariaDB tables that are taken while changes flow."""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.source import Finite
from connectors.errors import ConfigError
from connectors.snapshot import read_ahead
from tests.integration.binlog_capture import Log, after
from tests.integration.binlog_snapshots import done, read_until, take
from tests.integration.test_mysql_types import cases
from tests.servers.binlog import run

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Chunk, SourceReader
    from tests.servers.binlog import Kind

pytestmark = pytest.mark.servers

# So that a table of numbers can be made at once.
NUMBERS = (
    "CREATE OR REPLACE VIEW digits AS SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3"
    " UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9",
    "CREATE OR REPLACE VIEW numbers AS SELECT 1 + a.d + 10 * b.d + 100 * c.d i"
    " FROM digits a, digits b, digits c",
)


@pytest.fixture
def log(binlog_kind: Kind) -> Log:
    made = Log(binlog_kind.type, binlog_kind.server)
    made.run(*NUMBERS)
    return made


def test_rows_that_were_there_come_once_and_then_the_changes(log: Log) -> None:
    log.run(
        "CREATE TABLE items (id bigint PRIMARY KEY, value text)",
        "INSERT INTO items SELECT i + 1000 * d, concat('v', i) FROM numbers, digits WHERE d < 2",
        "CREATE TABLE none (id int PRIMARY KEY)",
        "CREATE TABLE others (id int PRIMARY KEY)",
        "INSERT INTO others VALUES (1)",
        "CREATE TABLE the_very_last (id int PRIMARY KEY)",
    )
    with closing(log.source(snapshot="initial").open(None)) as reader:
        chunks = read_until(reader, done)
        log.run("INSERT INTO none VALUES (7)")
        chunks += read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
    *changes, last = (change for chunk in chunks for change in chunk.changes)
    assert [after(change)["id"] for change in changes] == [*range(1, 2001), 1]
    assert {change.op for change in changes} == {"r"}
    marks = [envelope(change)["source"]["snapshot"] for change in changes]
    assert marks == ["first", *["true"] * 1999, "last"]
    assert envelope(last)["source"]["snapshot"] == "false"
    assert (last.op, after(last)) == ("c", {"id": 7})
    positions = [change.position for change in (*changes, last)]
    assert positions == sorted(set(positions))


def envelope(change: Change) -> dict[str, dict[str, object]]:
    return dict(msgspec.json.decode(change.envelope))


# The columns of a table, and what they hold in row number i of 300.
KEYS = {
    "composite": ("a varchar(9), b int, c text, PRIMARY KEY (b, a)", "concat('k', i % 7), i, 'v'"),
    "two parts": ("a int, b int, PRIMARY KEY (a, b)", "i % 3, i"),
    "text": ("id varchar(40) PRIMARY KEY", "concat(elt(i % 4 + 1, 'É', 'e\\'', '\\\\', 'E'), i)"),
    "bin": (
        "id varchar(40) COLLATE utf8mb4_bin PRIMARY KEY",
        "concat(char(97 + i % 26), left(sha2(i, 256), 32))",
    ),
    "latin": (
        "id varchar(9) CHARACTER SET latin1 PRIMARY KEY",
        "concat(char(97 + i % 26), 'é', i)",
    ),
    "utf16": ("id char(9) CHARACTER SET utf16 PRIMARY KEY", "concat('é', i)"),
    "sjis": ("id varchar(9) CHARACTER SET sjis PRIMARY KEY", "concat('日', i)"),
    "blank": ("id varchar(9), n int, PRIMARY KEY (id, n)", "repeat(' ', i % 3), i"),
    "prefix": ("id varchar(40), PRIMARY KEY (id(9))", "concat(i, '-padding-padding')"),
    "unsigned": ("id bigint unsigned PRIMARY KEY", "18446744073709551615 - i"),
    "zeros": ("id int(9) zerofill PRIMARY KEY, d decimal(9,2) zerofill", "i, i / 7"),
    "number": ("id decimal(20,9) PRIMARY KEY", "i / -7.0"),
    "single": ("id float PRIMARY KEY", "i / 7"),
    "float": ("id double PRIMARY KEY", "i / 7e0"),
    "moment": ("id timestamp(3) PRIMARY KEY", "'2026-01-01' + interval i * 1000 microsecond"),
    "clock": ("id datetime(6) PRIMARY KEY", "'2026-01-01' + interval i microsecond"),
    "span": ("id time PRIMARY KEY", "sec_to_time(i * 60 - 9000)"),
    "day": ("id date, n int, PRIMARY KEY (id, n)", "'2026-01-01' + interval i % 3 day, i"),
    "no day": ("id date, n int, PRIMARY KEY (id, n)", "if(i % 2, '0000-00-00', '2026-01-01'), i"),
    "years": ("id year, n int, PRIMARY KEY (id, n)", "if(i % 2, 0, 2000 + i % 5), i"),
    "bytes": ("id varbinary(20) PRIMARY KEY", "unhex(left(sha2(i, 256), 32))"),
    "fixed": ("id binary(16) PRIMARY KEY", "unhex(left(sha2(i, 256), 32))"),
    "bits": ("id bit(12) PRIMARY KEY", "i"),
    "moods": ("m enum('z','it''s \\\\ é','a'), n int, PRIMARY KEY (m, n)", "1 + i % 3, i"),
    "sets": ("m set('z','b','a'), n int, PRIMARY KEY (m, n)", "i % 8, i"),
    "odd `na%me": ("`Id ``x` int PRIMARY KEY, `%s` text", "i, 'v'"),
    "unique": ("a int, b int NOT NULL, UNIQUE u (b)", "i, -i"),
    "keyless": ("c text", "concat('v', i % 100)"),
    "null key": ("c int UNIQUE", "i"),
    "parted": ("id int PRIMARY KEY, c text", "i, 'v'"),
    "generated": (
        "id int PRIMARY KEY, d int AS (id * 2) VIRTUAL, e int AS (id * 3) STORED, f int",
        None,
    ),
}
KEYLESS = {"keyless", "null key"}
MYSQL_KEYS = {
    "backwards": ("a int, b int, c int, PRIMARY KEY (a DESC, b, c DESC)", "i % 3, i % 5, i"),
    "unseen": ("id int PRIMARY KEY INVISIBLE, c int", None),
}
MARIADB_KEYS = {
    "uuids": ("id uuid PRIMARY KEY", "concat('c9077732-a294-490a-95ac-', lpad(i * 7, 12, '0'))"),
    "addresses": ("id inet6 PRIMARY KEY", "concat('2001:db8::', i)"),
    "history": ("id int PRIMARY KEY, c int", "i, i"),
}


def test_every_kind_of_key_in_chunks_of_every_size(
    log: Log, binlog_kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KEYS | (MARIADB_KEYS if binlog_kind.mariadb else MYSQL_KEYS)
    make_tables(log, keys)
    counts: dict[str, list[Counter[str]]] = {}
    for rows, readers in ((50, 1), (16384, 1), (64, 2)):
        monkeypatch.setattr(read_ahead, "ROWS", rows)
        seen: dict[str, Counter[str]] = {name: Counter() for name in keys}
        read = take(log, snapshot_readers=readers)
        for change in read:
            assert change.table is not None
            seen[change.table.name][change.key or str(after(change))] += 1
        for name, counter in seen.items():
            counts.setdefault(name, []).append(counter)
    for name, counters in counts.items():
        assert [counter.total() for counter in counters] == [300] * 3, name
        assert counters[0] == counters[1] == counters[2], name
        if name not in KEYLESS:
            assert len(counters[0]) == 300, name
    assert_alike(log.changes(), read)


def make_tables(log: Log, keys: dict[str, tuple[str, str | None]]) -> None:
    """A table of 300 rows for each kind of key."""
    for name, (columns, values) in keys.items():
        table = "`" + name.replace("`", "``") + "`"
        more = " PARTITION BY HASH (id) PARTITIONS 3" if name == "parted" else ""
        more += " WITH SYSTEM VERSIONING" if name == "history" else ""
        rows = f"SELECT {values}"
        if values is None:
            rows = f"(id, {'f' if name == 'generated' else 'c'}) SELECT i, i"
        log.run(
            "SET sql_mode = ''",
            f"CREATE TABLE {table} ({columns}){more}",
            f"INSERT INTO {table} {rows} FROM numbers WHERE i <= 300",
        )


# Values that the tables of types do not have.
FURTHER: list[tuple[str, str]] = [
    ("float", "1e-40"),
    ("float", "3.4028234e38"),
    ("float", "-0e0"),
    ("float(7,3)", "1.2345"),
    ("double", "-0e0"),
    ("double", "2.2250738585072014e-308"),
    ("double", "1234567890123456789"),
    ("double(10,2)", "1.005"),
    ("int(7) zerofill", "42"),
    ("decimal(9,3) zerofill", "0.5"),
    ("decimal(9,3) zerofill", "12.5"),
    ("enum('a\\\\b','it''s','c\nd')", "'a\\\\b'"),
    ("set('a\\\\b','it''s','c\nd')", "3"),
    ("varchar(30)", "concat('\t', char(0), char(1), '\"')"),
    ("blob", "''"),
]
JSON: list[str] = [
    '\'{"a": "x, y: z", "b \\\\" \\\\\\\\, c": [1, {"d": " "}, []], "é": "😀"}\'',
    "'[1e20, 1.5e-7, 0.00001, 1e15, 123456789012345.6, 1e16, -1e-14, 1e-15, 5e-324, 0.1, 100.0]'",
    "json_array(cast(0.00001 as decimal(10,5)), cast(12345678901234567890.5 as decimal(30,1)))",
    "'null'",
    "'\"a\\\\n\\\\u0001 \\\\/ b\"'",
    "'[true, false, null, -1, 18446744073709551615]'",
    "json_object('b', x'ff', 'd', cast('2020-01-02 03:04:05' as datetime))",
]


def test_a_row_looks_the_same_from_table_and_log(log: Log, binlog_kind: Kind) -> None:
    made = [(type_, value) for type_, value, _ in cases(binlog_kind)] + FURTHER
    if not binlog_kind.mariadb:
        made += [("json", document) for document in JSON]
    groups = [made[start : start + 25] for start in range(0, len(made), 25)]
    for number, group in enumerate(groups):
        columns = ", ".join(f"c{index} {type_}" for index, (type_, _) in enumerate(group))
        log.run(
            "SET sql_mode = ''",
            f"CREATE TABLE t{number} (id int PRIMARY KEY, {columns})",
            f"INSERT INTO t{number} VALUES (1, {', '.join(value for _, value in group)})",
            f"INSERT INTO t{number} (id) VALUES (2)",
        )
    assert_alike(log.changes(), take(log))


def assert_alike(logged: list[Change], read: list[Change]) -> None:
    """The same rows come from the log and from the tables, byte for byte."""
    inserted = {look(change): change for change in logged}
    copied = {look(change): change for change in read}
    assert inserted.keys() == copied.keys()
    for identity, change in inserted.items():
        other = copied[identity]
        assert change.table == other.table
        assert change.key == other.key
        assert change.json_nulls == other.json_nulls
        assert row_of(change) == row_of(other)


def look(change: Change) -> tuple[str, str]:
    assert change.table is not None
    return change.table.name, change.key or row_of(change).decode()


def row_of(change: Change) -> bytes:
    """The row as it is written in the envelope."""
    return change.envelope.partition(b',"source":{"version"')[0]


def test_goes_on_where_it_was_after_every_chunk(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "ROWS", 100)
    log.run(
        "CREATE TABLE a (x varchar(9), y int, PRIMARY KEY (y, x))",
        "INSERT INTO a SELECT concat('x', i), i DIV 7 FROM numbers WHERE i <= 350",
        "CREATE TABLE b (id int)",
        "INSERT INTO b SELECT i FROM numbers WHERE i <= 250",
        "CREATE TABLE c (id int PRIMARY KEY)",
    )
    checkpoint: Checkpoint | None = None
    seen: list[Change] = []
    while checkpoint is None or '"done":true' not in checkpoint.state["snapshot"]:
        with closing(log.source(snapshot="initial").open(checkpoint)) as reader:
            progress = None if checkpoint is None else checkpoint.state["snapshot"]
            chunks = read_until(reader, partial(went_on, progress))
            seen += [change for chunk in chunks for change in chunk.changes]
            reader.confirm(chunks[-1].checkpoint)
        checkpoint = chunks[-1].checkpoint
    assert len(seen) == 600
    positions = [change.position for change in seen]
    assert positions == sorted(set(positions))


def went_on(progress: str | None, chunks: list[Chunk]) -> bool:
    return bool(chunks) and chunks[-1].checkpoint.state["snapshot"] != progress


@pytest.mark.parametrize("mode", ["never", "initial"])
def test_a_source_that_ran_without_a_snapshot_takes_none(log: Log, mode: str) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with closing(log.source(snapshot="never").open(None)) as reader:
        (first,) = read_until(reader, bool)
    assert "snapshot" not in first.checkpoint.state
    with closing(log.source(snapshot=mode).open(first.checkpoint)) as reader:
        log.run("INSERT INTO t VALUES (2)")
        chunks = read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
    assert [after(change) for chunk in chunks for change in chunk.changes] == [{"id": 2}]


def test_the_right_to_read_is_asked_for_at_the_start(log: Log, binlog_kind: Kind) -> None:
    user = f"reads_{secrets.token_hex(4)}"
    monitor = "BINLOG MONITOR" if binlog_kind.mariadb else "REPLICATION CLIENT"
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE TABLE `T 2` (id int PRIMARY KEY)",
        f"CREATE USER {user}@'%' IDENTIFIED BY 'secret'",
        f"GRANT REPLICATION SLAVE, {monitor} ON *.* TO {user}",
    )
    dsn = log.server.dsn().replace("waxtap@", f"{user}:secret@")
    patterns = [f"{log.name}.t", f"{log.name}.`T 2`", f"{log.name}.o*"]
    source = log.source(dsn=dsn, tables=patterns, snapshot="initial")
    with pytest.raises(ConfigError) as caught:
        source.open(None)
    assert caught.value.code == "mysql.select_right"
    for granted in ("`t`", "`T 2`", "*"):
        assert f"GRANT SELECT ON `{log.name}`.{granted} TO '{user}'@'%'" in caught.value.cure
    assert [error.code for error in source.check()] == ["mysql.select_right"]
    log.run(f"GRANT SELECT ON {log.name}.* TO {user}")
    assert source.check() == []
    with closing(source.open(None)) as reader:
        read_until(reader, done)
    run(log.server, f"DROP USER {user}")


def test_wide_rows_are_cut_by_their_size(log: Log) -> None:
    log.run(
        "CREATE TABLE wide (id int PRIMARY KEY, value longtext)",
        "INSERT INTO wide SELECT i, repeat(sha2(i, 256), 4096) FROM numbers WHERE i <= 60",
        "CREATE TABLE wider (id int PRIMARY KEY, value longblob, more longblob)",
        "INSERT INTO wider VALUES (1, repeat('x', 9000000), repeat('y', 9000000)), (2, '', '')",
    )
    with closing(log.source(snapshot="initial").open(None)) as reader:
        chunks = read_until(reader, done)
    found = [(c.table.name, after(c)["id"]) for s in chunks for c in s.changes if c.table]
    assert found == [*(("wide", i) for i in range(1, 61)), ("wider", 1), ("wider", 2)]
    sizes = [sum(len(each.envelope) for each in c.changes) for c in chunks if len(c.changes) > 1]
    assert max(sizes) <= 8 * 1024 * 1024


def test_a_table_that_is_dropped_meanwhile_is_left_out(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "ROWS", 100)
    log.run(
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int PRIMARY KEY)",
        "CREATE TABLE c (id int PRIMARY KEY)",
        "INSERT INTO a SELECT i FROM numbers",
        "INSERT INTO b SELECT i FROM numbers",
        "INSERT INTO c SELECT i FROM numbers WHERE i <= 10",
    )
    with closing(log.source(snapshot="initial").open(None)) as reader:
        chunks = read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
        log.run("DROP TABLE b")
        chunks += read_until(reader, done)
    names = Counter(change.table.name for c in chunks for change in c.changes if change.table)
    assert names == {"a": 1000, "c": 10}


def test_only_a_snapshot_ends(log: Log) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    source = log.source(snapshot="only")
    with closing(source.open(None)) as reader:
        chunks = read_until(reader, done)
        assert reader.read() is None
        assert not ended(reader)
        reader.confirm(chunks[-1].checkpoint)
        assert ended(reader)
    assert [after(change)["id"] for chunk in chunks for change in chunk.changes] == [1, 2]
    assert ended(source.open(chunks[-1].checkpoint))


def ended(reader: SourceReader) -> bool:
    return isinstance(reader, Finite) and reader.ended
