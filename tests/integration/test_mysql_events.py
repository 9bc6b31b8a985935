"""Everything that a log can hold besides plain rows, on real servers."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.errors import FatalError
from tests.integration.binlog_capture import Log, after
from tests.integration.test_mysql_types import cases
from tests.servers.binlog import connect, run

if TYPE_CHECKING:
    from pathlib import Path

    from connectors.contracts.changes import Change
    from tests.servers.binlog import Kind

pytestmark = pytest.mark.servers


@pytest.fixture
def log(binlog_kind: Kind) -> Log:
    return Log(binlog_kind.type, binlog_kind.server)


def told(changes: list[Change]) -> list[tuple[str, dict[str, object] | None]]:
    """Op and row of each change."""
    return [(change.op, _row(change)) for change in changes]


def _row(change: Change) -> dict[str, object] | None:
    envelope = msgspec.json.decode(change.envelope)
    row: dict[str, object] | None = envelope["before" if change.op == "d" else "after"]
    return row


def test_each_row_has_the_names_its_table_had_when_it_was_written(log: Log) -> None:
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b varchar(10))",
        "INSERT INTO t VALUES (1, 2, 'x')",
        "ALTER TABLE t ADD COLUMN c decimal(5,2) DEFAULT 1.5 FIRST",
        "INSERT INTO t (id, a, b) VALUES (2, 3, 'y')",
        "ALTER TABLE t CHANGE COLUMN a renamed bigint",
        "UPDATE t SET renamed = 5 WHERE id = 2",
        "ALTER TABLE t DROP COLUMN b, MODIFY COLUMN c varchar(5)",
        "INSERT INTO t VALUES ('q', 3, 4)",
        "RENAME TABLE t TO u",
        "INSERT INTO u VALUES (NULL, 4, 4)",
        "DROP TABLE u",
        'CREATE TABLE t (other text, `odd "name` int)',
        "INSERT INTO t VALUES ('z', 1)",
    )
    changes = log.changes()
    assert [row for _, row in told(changes)] == [
        {"id": 1, "a": 2, "b": "x"},
        {"c": "1.50", "id": 2, "a": 3, "b": "y"},
        {"c": "1.50", "id": 2, "renamed": 5, "b": "y"},
        {"c": "q", "id": 3, "renamed": 4},
        {"c": None, "id": 4, "renamed": 4},
        {"other": "z", 'odd "name': 1},
    ]
    tables = [change.table for change in changes if change.table]
    assert [table.name for table in tables] == ["t", "t", "t", "t", "u", "t"]
    assert [table.key for table in tables] == [("id",)] * 5 + [()]
    assert changes[-1].key is None


def test_generated_invisible_and_keys_of_several_columns(log: Log) -> None:
    hidden = "h int INVISIBLE DEFAULT 7"
    log.run(
        f"CREATE TABLE t (b int, a varchar(5), s int AS (b + 1) STORED, v int AS (b + 2) VIRTUAL,"
        f" {hidden}, PRIMARY KEY (b, a))",
        "INSERT INTO t (b, a) VALUES (1, 'é')",
        "UPDATE t SET b = 2",
        "DELETE FROM t",
    )
    changes = log.changes()
    row = {"b": 1, "a": "é", "s": 2, "v": 3, "h": 7}
    moved = {"b": 2, "a": "é", "s": 3, "v": 4, "h": 7}
    assert told(changes) == [("c", row), ("u", moved), ("d", moved)]
    assert [change.key for change in changes] == [
        '{"b":1,"a":"\\u00e9"}',
        '{"b":2,"a":"\\u00e9"}',
        '{"b":2,"a":"\\u00e9"}',
    ]
    assert msgspec.json.decode(changes[1].envelope)["before"] == row
    assert all(change.unavailable == () for change in changes)


def test_truncated_tables_are_told(log: Log) -> None:
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        f"TRUNCATE `{log.name}` . `t`",
        "/* why */ truncate table t",
        "INSERT INTO t VALUES (2)",
    )
    changes = log.changes()
    assert [change.op for change in changes] == ["c", "t", "t", "c"]
    assert {change.table.hash for change in changes if change.table} == {
        changes[0].table.hash if changes[0].table else ""
    }
    assert all(change.last for change in changes)


def test_a_table_that_is_truncated_first_has_the_shape_that_the_log_tells_later(
    log: Log, binlog_kind: Kind
) -> None:
    columns = [f"c{index} {type_}" for index, (type_, _, _) in enumerate(cases(binlog_kind))]
    columns = [column for column in columns if "(300)" not in column]
    for number, start in enumerate(range(0, len(columns), 30)):
        listed = ", ".join(columns[start : start + 30])
        log.run(
            "SET sql_mode = ''",
            f"CREATE TABLE t{number} (id int unsigned PRIMARY KEY, {listed})",
            f"TRUNCATE t{number}",
            f"INSERT INTO t{number} (id) VALUES (1)",
        )
    changes = log.changes()
    for truncated, inserted in zip(changes[::2], changes[1::2], strict=True):
        assert (truncated.op, inserted.op) == ("t", "c")
        assert truncated.table == inserted.table


def test_xa_transactions_appear_when_they_are_committed(log: Log) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)")
    server = log.server
    for xid, number in (("a", 1), ("b", 2)):
        with connect(server, log.name) as connection, connection.cursor() as cursor:
            cursor.execute(f"XA START '{log.name}{xid}'")
            cursor.execute(f"INSERT INTO t VALUES ({number}), ({number + 10})")
            cursor.execute(f"XA END '{log.name}{xid}'")
            cursor.execute(f"XA PREPARE '{log.name}{xid}'")
    log.run("INSERT INTO t VALUES (3)")
    log.run(f"XA COMMIT '{log.name}b'")
    log.run("INSERT INTO t VALUES (4)")
    log.run(f"XA ROLLBACK '{log.name}a'")
    with connect(server, log.name) as connection, connection.cursor() as cursor:
        cursor.execute(f"XA START '{log.name}c'")
        cursor.execute("INSERT INTO t VALUES (5)")
        cursor.execute(f"XA END '{log.name}c'")
        cursor.execute(f"XA COMMIT '{log.name}c' ONE PHASE")
    changes = log.changes()
    assert [after(change)["id"] for change in changes] == [3, 2, 12, 4, 5]
    assert [change.last for change in changes] == [True, False, True, True, True]


def test_a_prepared_transaction_survives_a_restart_of_the_source(log: Log) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)")
    with connect(log.server, log.name) as connection, connection.cursor() as cursor:
        cursor.execute(f"XA START '{log.name}'")
        cursor.execute("INSERT INTO t VALUES (1), (2)")
        cursor.execute(f"XA END '{log.name}'")
        cursor.execute(f"XA PREPARE '{log.name}'")
    log.run("INSERT INTO t VALUES (3)")
    checkpoint = log.begun
    seen: list[Change] = []
    with closing(log.source().open(checkpoint)) as reader:
        while not seen:
            if (chunk := reader.read()) is not None:
                seen += chunk.changes
                checkpoint = chunk.checkpoint
    log.run(f"XA COMMIT '{log.name}'", "INSERT INTO t VALUES (4)")
    with closing(log.source().open(checkpoint)) as reader:
        while len(seen) < 4:
            if (chunk := reader.read()) is not None:
                seen += chunk.changes
                checkpoint = chunk.checkpoint
    assert [after(change)["id"] for change in seen] == [3, 1, 2, 4]
    assert "held" not in checkpoint.state


def test_compressed_transactions_are_decoded(log: Log, binlog_kind: Kind) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY, a longtext)")
    if binlog_kind.mariadb:
        server = binlog_kind.factory({"log-bin-compress": "ON", "log-bin-compress-min-len": "10"})
        log = Log("mariadb", server)
        log.run("CREATE TABLE t (id int PRIMARY KEY, a longtext)")
    switch = "DO 0" if binlog_kind.mariadb else "SET binlog_transaction_compression = ON"
    log.run(
        switch,
        "INSERT INTO t VALUES (1, repeat('x', 5000)), (2, repeat('y', 5000))",
        "UPDATE t SET a = repeat('z', 6000) WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "TRUNCATE t",
        "INSERT INTO t VALUES (3, NULL)",
    )
    with connect(log.server, log.name) as connection, connection.cursor() as cursor:
        for statement in (
            switch,
            f"XA START '{log.name}'",
            "INSERT INTO t VALUES (4, repeat('u', 5000))",
            f"XA END '{log.name}'",
            f"XA PREPARE '{log.name}'",
            f"XA COMMIT '{log.name}'",
        ):
            cursor.execute(statement)
    assert told(log.changes()) == [
        ("c", {"id": 1, "a": "x" * 5000}),
        ("c", {"id": 2, "a": "y" * 5000}),
        ("u", {"id": 1, "a": "z" * 6000}),
        ("d", {"id": 2, "a": "y" * 5000}),
        ("t", None),
        ("c", {"id": 3, "a": None}),
        ("c", {"id": 4, "a": "u" * 5000}),
    ]


def test_files_are_loaded_row_by_row(log: Log, tmp_path: Path) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY, a text)")
    file = log.server.put_file(f"{log.name}.tsv", b"1\tx\n2\ty\n")
    log.run(f"LOAD DATA INFILE '{file}' INTO TABLE t")
    assert told(log.changes()) == [("c", {"id": 1, "a": "x"}), ("c", {"id": 2, "a": "y"})]


def test_a_statement_that_was_logged_as_its_text_stops_the_source_or_is_left_out(
    log: Log, binlog_kind: Kind
) -> None:
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "INSERT INTO t VALUES (1, 1)",
        "SET SESSION binlog_format = 'STATEMENT'",
        "UPDATE t SET a = 2",
        "INSERT INTO t VALUES (2, 2)",
    )
    with pytest.raises(FatalError, match="binlog_format") as caught:
        log.changes()
    assert caught.value.code == "mysql.statement_format"
    assert caught.value.where.startswith("binlog.0")
    tolerant = Log(binlog_kind.type, binlog_kind.server, statements="skip")
    tolerant.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "INSERT INTO t VALUES (1, 1)",
        "SET SESSION binlog_format = 'STATEMENT'",
        "UPDATE t SET a = 2",
        "SET SESSION binlog_format = 'ROW'",
        "INSERT INTO t VALUES (3, 3)",
    )
    assert [row for _, row in told(tolerant.changes())] == [{"id": 1, "a": 1}, {"id": 3, "a": 3}]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TABLE c (PRIMARY KEY (id)) SELECT id, a FROM t", "CREATE TABLE ... SELECT"),
        ("LOAD DATA INFILE '{file}' INTO TABLE t", "LOAD DATA"),
    ],
)
def test_rows_that_a_statement_takes_from_elsewhere_are_missed_too(
    log: Log, statement: str, named: str
) -> None:
    for policy in ("stop", "skip"):
        each = Log(log.type, log.server, statements=policy)
        file = log.server.put_file(f"{each.name}.tsv", b"2\tx\n")
        each.run(
            "CREATE TABLE t (id int PRIMARY KEY, a text)",
            "SET SESSION binlog_format = 'STATEMENT'",
            statement.format(file=file),
            "SET SESSION binlog_format = 'ROW'",
            "INSERT INTO t VALUES (3, 'z')",
        )
        if policy == "skip":
            assert told(each.changes()) == [("c", {"id": 3, "a": "z"})]
            continue
        with pytest.raises(FatalError, match=re.escape(f"{named} was logged")) as caught:
            each.changes()
        assert caught.value.code == "mysql.statement_format"


def test_a_session_with_minimal_images_leaves_values_unavailable(log: Log) -> None:
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text)",
        "INSERT INTO t VALUES (1, 2, 'x')",
        "SET binlog_row_image = 'MINIMAL'",
        "UPDATE t SET a = 3 WHERE id = 1",
        "DELETE FROM t WHERE id = 1",
    )
    _, update, delete = log.changes()
    assert update.unavailable == ("b",)
    assert after(update) == {"id": 1, "a": 3, "b": "__debezium_unavailable_value"}
    assert told([delete]) == [("d", {"id": 1})]
    assert delete.key == '{"id":1}'


def test_parts_of_json_documents_are_refused(log: Log, binlog_kind: Kind) -> None:
    if binlog_kind.mariadb:
        return  # it has no such thing
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY, a json)",
        'INSERT INTO t VALUES (1, \'{"a": 1, "b": "' + "x" * 50 + "\"}')",
        "SET binlog_row_value_options = 'PARTIAL_JSON'",
        "UPDATE t SET a = JSON_SET(a, '$.a', 2)",
    )
    with pytest.raises(FatalError) as caught:
        log.changes()
    assert caught.value.code == "mysql.partial_json"


def test_tagged_transactions_are_resumed_exactly(log: Log, binlog_kind: Kind) -> None:
    if binlog_kind.mariadb:
        return  # it has domains instead
    log.run("CREATE TABLE t (id int PRIMARY KEY)")
    for number in range(1, 4):
        log.run("SET gtid_next = 'AUTOMATIC:waxtap'", f"INSERT INTO t VALUES ({number})")
        log.run(f"INSERT INTO t VALUES ({number + 10})")
    changes = log.changes()
    assert [after(change)["id"] for change in changes] == [1, 11, 2, 12, 3, 13]
    assert ":waxtap:" in changes[0].transaction
    with closing(log.source().open(log.begun)) as reader:
        chunk = None
        while chunk is None or not chunk.changes:
            chunk = reader.read()
    log.run("INSERT INTO t VALUES (20)")
    with closing(log.source().open(chunk.checkpoint)) as reader:
        rest: list[Change] = []
        while not rest:
            if (chunk := reader.read()) is not None:
                rest += chunk.changes
    assert [after(change)["id"] for change in rest] == [20]


def test_other_engines_savepoints_and_tables_made_from_queries(log: Log) -> None:
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE TABLE m (id int PRIMARY KEY) ENGINE = MyISAM",
        "INSERT INTO m VALUES (1)",
        "CREATE TABLE c AS SELECT id + 1 AS id FROM m",
    )
    with connect(log.server, log.name) as connection, connection.cursor() as cursor:
        for statement in (
            "BEGIN",
            "INSERT INTO t VALUES (3)",
            "SAVEPOINT `a b`",
            "INSERT INTO t VALUES (99)",
            "ROLLBACK TO SAVEPOINT `a b`",
            "INSERT INTO t VALUES (4)",
            "COMMIT",
        ):
            cursor.execute(statement)
    changes = log.changes()
    assert [(c.table.name, after(c)["id"]) for c in changes if c.table] == [
        ("m", 1),
        ("c", 2),
        ("t", 3),
        ("t", 4),
    ]


def test_sequences_are_no_tables(log: Log, binlog_kind: Kind) -> None:
    if not binlog_kind.mariadb:
        return  # it has none
    log.run(
        "CREATE SEQUENCE s",
        "CREATE TABLE t (id int PRIMARY KEY DEFAULT (NEXT VALUE FOR s))",
        "INSERT INTO t VALUES (), (), ()",
        "SELECT SETVAL(s, 5000)",
    )
    assert told(log.changes()) == [("c", {"id": number}) for number in (1, 2, 3)]


def test_the_log_goes_on_in_the_next_file(log: Log) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)")
    for number in range(3):
        log.run(f"INSERT INTO t VALUES ({number})")
        run(log.server, "FLUSH BINARY LOGS")
    positions = [change.position for change in log.changes()]
    files = [position.split("-")[1] for position in positions]
    assert len(set(files)) == 3
    assert positions == sorted(positions)
