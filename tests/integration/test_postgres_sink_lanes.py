"""The PostgreSQL sink over several sessions: the same rows, once, in each row's order."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.changes import Column
from connectors.errors import PermanentError
from connectors.postgres.target import lanes
from connectors.postgres.target.offsets import lane_of
from tests.integration.postgres_rows import (
    ID,
    ITEMS,
    SHARE,
    SUBJECT,
    Log,
    batch,
    deliver,
    items,
    query,
    shape,
    sink,
)
from tests.integration.streams import until

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

LANE_ROWS = "SELECT subject, seq FROM waxtap.offsets WHERE subject LIKE '% %' ORDER BY 1"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes are worth it for a few changes already."""
    monkeypatch.setattr(lanes, "LANE_CHANGES", 1)


def of_lane(lane: int, count: int, many: int) -> list[int]:
    """Keys whose changes go in a lane."""
    keys = (n for n in range(1000) if lane_of(f'{{"id":{n}}}', count) == lane)
    return [next(keys) for _ in range(many)]


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_a_lane_that_was_ahead_repeats_nothing_whatever_their_number(
    parallelism: int, database: Database
) -> None:
    """One of two lanes has committed when the writer ends; a history would show a row twice."""
    ahead, behind = of_lane(0, 2, 20), of_lane(1, 2, 20)
    query(
        database,
        "CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (true);"
        "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.id = {behind[0]} THEN PERFORM open FROM gate FOR SHARE; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TABLE items (id bigint, a text, b text);"
        "CREATE TRIGGER pass BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION pass()",
    )
    log = Log()
    changes = [log.put(id_) for pair in zip(ahead, behind, strict=True) for id_ in pair]
    to = sink(database.dsn, mode="append", parallelism=2)
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer, database.connect() as guard:
        with guard.transaction():
            guard.execute("SELECT open FROM gate FOR UPDATE")
            writer.write(batch(claim, *changes))
            until(lambda: query(database, LANE_ROWS))
            writer.close()
            assert query(database, LANE_ROWS) == [(f"{SUBJECT} 0/2", 40)]
            assert query(database, "SELECT count(*) FROM items") == [(20,)]
        assert writer.stored == 0
    to = sink(database.dsn, mode="append", parallelism=parallelism)
    claim = to.claim(SHARE)
    assert claim.offsets == {SUBJECT: 0}
    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, *changes[:30]))
        more = [log.put(ahead[0]), log.put(behind[0]), log.put(ahead[1])]
        writer.write(batch(claim, *changes[30:], *more))
        writer.flush()
    counted = "SELECT count(*), count(DISTINCT _cdc_sequence), max(_cdc_sequence) FROM items"
    assert query(database, counted) == [(43, 43, 43)]


def history(seed: int, length: int) -> list[Delivered]:
    """Whatever may come: also keys that change, truncates, and two changes of one message."""
    random_, log = random.Random(seed), Log()
    made: list[Delivered] = []
    for _ in range(length):
        id_, text = random_.randrange(30), f"v{log.sequence}"
        kind = random_.random()
        if kind < 0.7:
            made.append(log.put(id_, text))
        elif kind < 0.9:
            made.append(log.delete(id_))
        elif kind < 0.96:
            row: dict[str, object] = {"id": id_, "a": text, "b": ""}
            made.append(log.change("u", ITEMS, row, before={"id": random_.randrange(30)}))
        elif kind < 0.99:
            made += [log.put(id_, text), log.put(id_ + 1, text)._replace(sequence=log.sequence - 1)]
        else:
            made.append(log.change("t", ITEMS))
    return made


@pytest.mark.parametrize("seed", range(4))
def test_lanes_end_in_the_same_state(seed: int, database: Database) -> None:
    changes = history(seed, 1500)
    deliver(sink(database.dsn, schema="plain"), changes)
    to = sink(database.dsn, parallelism=1 + seed)
    claim = to.claim(msgspec.structs.replace(SHARE, sink="lanes"))
    with closing(to.open(claim)) as writer:
        for start in range(0, len(changes), 100):
            writer.write(batch(claim, *changes[start : start + 100]))
            writer.flush()
            assert writer.stored == changes[start : start + 100][-1].sequence
    assert items(database) == query(database, "SELECT id, a, b FROM plain.items ORDER BY id")
    assert bool(query(database, LANE_ROWS)) == (seed > 0)


def test_a_newer_claim_ends_the_lanes(database: Database) -> None:
    """Also those that hang in a transaction."""
    to, log = sink(database.dsn, parallelism=2), Log()
    deliver(to, [log.put(n) for n in range(40)])
    old = to.claim(SHARE)
    with closing(to.open(old)) as writer, database.connect() as guard, guard.transaction():
        guard.execute("SELECT 1 FROM items FOR UPDATE")
        writer.write(batch(old, *(log.put(n, "zombie") for n in range(40))))
        blocked = "SELECT 1 FROM pg_locks WHERE NOT granted"
        until(lambda: len(query(database, blocked)) >= 2)
        new = to.claim(SHARE)
        assert new.offsets == old.offsets
        lanes_left = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
        until(lambda: not query(database, lanes_left))
    assert {a for _, a, _ in items(database)} == {""}


def test_what_a_lane_refuses_is_named_and_the_other_lane_repeats_nothing(
    database: Database,
) -> None:
    query(database, "CREATE TABLE items (id bigint, a text CHECK (a <> 'poison'), b text)")
    to, log = sink(database.dsn, mode="append", parallelism=2), Log()
    changes = [log.put(n, "poison" if n == 25 else "") for n in range(60)]
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, *changes))
        with pytest.raises(PermanentError) as caught:
            writer.flush()
    culprit = caught.value.sequence
    assert culprit == 26
    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, *(c for c in changes if c.sequence != culprit)))
        writer.flush()
    counted = "SELECT count(*), count(DISTINCT _cdc_sequence) FROM items"
    assert query(database, counted) == [(59, 59)]


def test_tables_with_foreign_keys_go_by_one_session(database: Database) -> None:
    query(
        database,
        "CREATE TABLE parents (id bigint PRIMARY KEY);"
        "CREATE TABLE children (id bigint PRIMARY KEY, parent bigint REFERENCES parents)",
    )
    parents = shape("parents", ID)
    children = shape("children", ID, Column("parent", "bigint", "number"))
    to, log, changes = sink(database.dsn, parallelism=4), Log(), []
    for n in range(50):
        changes.append(log.change("c", parents, {"id": n}))
        changes.append(log.change("c", children, {"id": n, "parent": n}))
    deliver(to, changes)
    assert query(database, "SELECT count(*) FROM children") == [(50,)]
    assert query(database, LANE_ROWS) == []
