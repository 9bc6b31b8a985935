"""Backfills of MySQL and MariaDB tables, by a source that runs."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.backfills import Stage
from tests.integration.asked_backfills import AskedBackfills
from tests.integration.binlog_capture import Log, after
from tests.integration.binlog_snapshots import read_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk, SourceReader
    from tests.servers.binlog import Kind

pytestmark = pytest.mark.servers

_PATIENCE = 30.0


@pytest.fixture
def log(binlog_kind: Kind) -> Log:
    """A database with 3000 items, and one other row."""
    made = Log(binlog_kind.type, binlog_kind.server)
    rows = ", ".join(f"({i}, 'v{i}')" for i in range(1, 3001))
    made.run(
        "CREATE TABLE items (id int PRIMARY KEY, value varchar(20))",
        f"INSERT INTO items VALUES {rows}",
        "CREATE TABLE others (id int)",
        "INSERT INTO others VALUES (1), (2), (3)",
        "CREATE TABLE late (id int PRIMARY KEY)",
    )
    return made


def read_while(reader: SourceReader, going: Callable[[], bool]) -> list[Chunk]:
    """Read as a flow does, which confirms what is stored."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + _PATIENCE
    while going():
        assert time.monotonic() < deadline, f"not done: {len(chunks)} chunks"
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
            reader.confirm(chunk.checkpoint)
    return chunks


def rows_of(chunks: list[Chunk]) -> list[Change]:
    return [change for chunk in chunks for change in chunk.changes if change.op == "r"]


def ids(rows: list[Change]) -> list[object]:
    return [after(row)["id"] for row in rows]


def test_rows_that_are_asked_for_come_and_no_others(log: Log) -> None:
    backfills = AskedBackfills()
    with closing(log.asked(backfills, snapshot="never").open(None)) as reader:
        log.run("INSERT INTO late VALUES (1)")
        read_until(reader, lambda seen: any(chunk.changes for chunk in seen))
        backfills.ask("b1", f"{log.name}.it*", where="id % 2 = 0 -- even", sink="new")
        backfills.ask("b2", f"{log.name}.others", where="id <> 2")
        chunks = read_while(reader, lambda: not backfills.stage("b2").final)
    found = rows_of(chunks)
    assert ids(found) == [*range(2, 3001, 2), 1, 3]
    marks = {msgspec.json.decode(row.envelope)["source"]["snapshot"] for row in found}
    assert marks == {"incremental"}
    assert {chunk.sink for chunk in chunks if len(rows_of([chunk])) > 2} == {"new"}
    told = backfills.told["b1"][-1]
    assert (told.stage, told.rows, told.error) == (Stage.DONE, 1500, "")


def test_a_bad_condition_fails_by_itself(log: Log) -> None:
    bad = {
        "column": "no_such = 1",
        "union": "true) UNION SELECT id, value FROM items WHERE (true",
        "case": "1 THEN 1 END FROM items UNION SELECT CASE WHEN 1",
        "second": "true; DROP TABLE items",
        "comment": "id > 1 /*",
        "table": "id IN (SELECT id FROM nowhere)",
    }
    backfills = AskedBackfills()
    with closing(log.asked(backfills, snapshot="never").open(None)) as reader:
        for name, where in bad.items():
            backfills.ask(name, f"{log.name}.items", where=where)
        backfills.ask("none", f"{log.name}.nowhere")
        backfills.ask("good", f"{log.name}.items", where="id <= 3")
        chunks = read_while(reader, lambda: not backfills.stage("good").final)
    for name in bad:
        told = backfills.told[name][-1]
        assert told.stage is Stage.FAILED, name
        assert "the condition is none for" in told.error, name
    assert "no table that is captured matches" in backfills.told["none"][-1].error
    assert ids(rows_of(chunks)) == [1, 2, 3]


def test_it_goes_on_where_it_was_and_is_not_repeated(log: Log) -> None:
    asked = AskedBackfills()
    asked.ask("b", f"{log.name}.items")
    checkpoint, found = None, []
    for _ in range(3):
        # A new process knows nothing of what the one before has told.
        backfills = AskedBackfills(dict(asked.asked))
        with closing(log.asked(backfills, snapshot="never").open(checkpoint)) as reader:
            seen = read_until(reader, lambda chunks: bool(rows_of(chunks)))
            checkpoint = seen[-1].checkpoint
            found += rows_of(seen)
    backfills = AskedBackfills(dict(asked.asked))
    with closing(log.asked(backfills, snapshot="never").open(checkpoint)) as reader:
        chunks = read_while(reader, lambda: not backfills.stage("b").final)
    assert ids(found + rows_of(chunks)) == list(range(1, 3001))


def test_no_row_follows_what_is_newer(log: Log) -> None:
    backfills = AskedBackfills()
    with closing(log.asked(backfills, snapshot="never").open(None)) as reader:
        backfills.ask("b", f"{log.name}.items", rate=1500)
        chunks = read_until(reader, lambda seen: bool(rows_of(seen)))
        log.run("UPDATE items SET value = 'new'", "DELETE FROM items WHERE id % 3 = 0")
        chunks += read_while(reader, lambda: not backfills.stage("b").final)
        log.run("INSERT INTO late VALUES (7)")
        chunks += read_until(
            reader, lambda seen: any(c.key == '{"id":7}' for s in seen for c in s.changes)
        )
    target: dict[object, object] = {}
    for change in (change for chunk in chunks for change in chunk.changes):
        if change.table is None or change.table.name != "items":
            continue
        row = msgspec.json.decode(change.envelope)
        if change.op == "d":
            target.pop(row["before"]["id"], None)
        else:
            target[row["after"]["id"]] = row["after"]["value"]
    assert target == {i: "new" for i in range(1, 3001) if i % 3}
