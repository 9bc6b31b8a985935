"""A slot that is lost, and how targets become equal again."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError, GapError
from tests.integration.postgres_capture import after, make_source, read_until
from tests.integration.postgres_snapshots import done, run

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Chunk
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers
_ROWS = 5000


class _Target:
    """Stores chunks as a stream and a sink behind it would."""

    def __init__(self) -> None:
        self.stored: Checkpoint | None = None
        self.rows: dict[object, object] = {}
        self.positions: list[str] = []
        self.ops: list[str] = []

    def store(self, chunk: Chunk) -> None:
        for change in chunk.changes:
            self._apply(change)
        self.stored = chunk.checkpoint

    def _apply(self, change: Change) -> None:
        self.positions.append(change.position)
        self.ops.append(change.op)
        table = change.table
        assert table is not None
        if change.op == "t":
            self.rows = {key: row for key, row in self.rows.items() if key[0] != table.name}  # type: ignore[index]
        elif change.op == "d":
            del self.rows[table.name, change.key]
        else:
            self.rows[table.name, change.key] = after(change)["note"]


def _follow(database: Database, target: _Target, *accept: str, stop_after: int = 0) -> None:
    """Store until the snapshot is done, or for so many chunks."""
    source = make_source(database.dsn, database.name, snapshot="initial", accept=accept)
    with closing(source.open(target.stored)) as reader:
        for _ in range(stop_after or 100_000):
            (chunk,) = read_until(reader, bool)
            target.store(chunk)
            if not stop_after and done([chunk]):
                break


def _rows(database: Database) -> dict[object, object]:
    with closing(database.connect()) as connection:
        return {
            (table, f'{{"id":{id_}}}'): note
            for table in ("items", "others")
            for id_, note in connection.execute(f"SELECT id, note FROM {table}".encode())
        }


@pytest.fixture
def lost(database: Database) -> tuple[Database, _Target]:
    """A target that was equal to a database, whose slot was dropped; much has happened since."""
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY, note text)",
        "CREATE TABLE others (id int PRIMARY KEY, note text)",
        f"INSERT INTO items SELECT i, 'old' FROM generate_series(1, {_ROWS}) i",
        "INSERT INTO others VALUES (1, 'old')",
    )
    target = _Target()
    _follow(database, target)
    assert target.rows == _rows(database)
    run(
        database,
        f"SELECT pg_drop_replication_slot('waxtap_{database.name}')",
        "UPDATE items SET note = 'new' WHERE id % 3 = 0",
        "DELETE FROM items WHERE id % 5 = 0",
        "INSERT INTO items VALUES (9999, 'new')",
        "DELETE FROM others",
    )
    return database, target


def _token(database: Database, target: _Target, kind: str) -> str:
    assert target.stored is not None
    return f"{kind}:waxtap_{database.name}@{target.stored.state['lsn']}"


def test_an_accepted_gap_has_the_tables_read_once_more(lost: tuple[Database, _Target]) -> None:
    database, target = lost
    with pytest.raises(GapError) as caught:
        _follow(database, target)
    gap, refill = (_token(database, target, kind) for kind in ("gap", "refill"))
    assert caught.value.code == "postgres.slot_missing"
    assert gap in caught.value.cure
    assert refill in caught.value.cure
    _follow(database, target, gap)
    # What was deleted in the gap stays, as the error has said.
    rows, kept = _rows(database), target.rows
    assert {key: kept[key] for key in rows} == rows
    assert len(kept) == len(rows) + _ROWS // 5 + 1
    assert "t" not in target.ops


def test_a_refill_makes_the_target_equal_again(lost: tuple[Database, _Target]) -> None:
    database, target = lost
    seen = len(target.ops)
    token = _token(database, target, "refill")
    # Killed again and again, and written to meanwhile.
    for turn in range(4):
        _follow(database, target, token, stop_after=1)
        run(database, f"INSERT INTO items VALUES ({10_000 + turn}, 'meanwhile')")
    _follow(database, target, token)
    assert target.rows == _rows(database)
    ops = target.ops[seen:]
    assert ops[:2] == ["t", "t"]
    assert "t" not in ops[2:]
    positions = target.positions[seen:]
    assert positions == sorted(set(positions))
    # It was good for that one loss.
    run(database, f"SELECT pg_drop_replication_slot('waxtap_{database.name}')")
    with pytest.raises(GapError):
        _follow(database, target, token)


def test_who_is_killed_before_the_truncates_are_stored_begins_again(
    lost: tuple[Database, _Target],
) -> None:
    database, target = lost
    stored = target.stored
    token = _token(database, target, "refill")
    source = make_source(database.dsn, database.name, snapshot="initial", accept=[token])
    with closing(source.open(stored)) as reader:
        assert reader.read() is not None
    _follow(database, target, token)
    assert target.rows == _rows(database)


def test_a_refill_wants_something_to_refill_with(lost: tuple[Database, _Target]) -> None:
    database, target = lost
    token = _token(database, target, "refill")
    source = make_source(database.dsn, database.name, accept=[token])
    with pytest.raises(ConfigError) as caught:
        source.open(target.stored)
    assert caught.value.code == "postgres.refill_without_snapshot"
