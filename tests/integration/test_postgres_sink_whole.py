"""Source transactions in the PostgreSQL sink: whole, in commit order, whatever happens."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.contracts.sink import Batch
from connectors.errors import FatalError, FencedError, PermanentError
from connectors.postgres.target import spool as spooling
from connectors.postgres.target import writer as writing
from tests.integration.postgres_rows import (
    ID,
    SHARE,
    SUBJECT,
    Log,
    items,
    query,
    shape,
    sink,
    stored,
)
from tests.integration.streams import until
from tests.integration.tcp_relay import TcpRelay
from tests.integration.test_postgres_sink_failures import AUDITED, port, through

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Claim
    from connectors.postgres.sink import PostgresSink
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

ENTRIES = shape("entries", ID)
IDLE = (
    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'waxtap/warehouse'"
    " AND state LIKE 'idle in transaction%'"
)
END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'waxtap/warehouse'"
)


def whole(dsn: str) -> PostgresSink:
    return sink(dsn, transactions=True)


def piece(claim: Claim, complete: int, *changes: Delivered) -> Batch:
    """A batch that ends in the middle of a transaction, unless it is complete."""
    return Batch(claim, list(changes), changes[-1].sequence, complete)


def test_the_flow_is_told_that_it_matters(database: Database) -> None:
    assert whole(database.dsn).whole_transactions
    assert not sink(database.dsn).whole_transactions


def test_a_transaction_is_seen_whole_or_not_at_all(database: Database) -> None:
    """Across tables, and with those that are made for it."""
    to, log = whole(database.dsn), Log()
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(piece(claim, 1, log.put(1, "a"), log.put(2, "b")))
        writer.flush()
        assert (writer.stored, stored(database)) == (1, [(1,)])
        assert items(database) == [(1, "a", "")]
        writer.write(piece(claim, 1, log.change("c", ENTRIES, {"id": 1}), log.delete(1)))
        writer.write(piece(claim, 1, log.put(2, "c")))
        writer.flush()
        assert items(database) == [(1, "a", "")]
        assert query(database, "SELECT to_regclass('entries')") == [(None,)]
        # its end, a whole one, and the beginning of the next
        writer.write(piece(claim, 7, log.put(3), log.put(4), log.put(5)))
        writer.flush()
        assert (writer.stored, stored(database)) == (7, [(7,)])
        assert items(database) == [(2, "c", ""), (3, "", ""), (4, "", "")]
        assert query(database, "SELECT id FROM entries") == [(1,)]
        # it ends in another topic
        writer.write(Batch(claim, [], 9, 9))
        writer.flush()
        assert (writer.stored, stored(database)) == (9, [(9,)])
    assert items(database)[-1] == (5, "", "")


def test_who_reads_on_behind_a_stored_transaction_repeats_nothing(database: Database) -> None:
    query(database, AUDITED)
    to, log = whole(database.dsn), Log()
    changes = [log.put(n) for n in range(1, 7)]
    for upto in (4, 5, 6):
        claim = to.claim(SHARE)
        rest = [c for c in changes[:upto] if c.sequence > claim.offsets[SUBJECT]]
        with closing(to.open(claim)) as writer:
            writer.write(piece(claim, upto if upto == 6 else 2, *rest))
            writer.flush()
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM audit") == [(6, 6)]


def test_a_session_that_ends_in_a_transaction_is_made_up_for(database: Database) -> None:
    query(database, AUDITED)
    to, log = whole(database.dsn), Log()
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        for number in range(12):
            writer.write(piece(claim, 0, *(log.put(5 * number + n) for n in range(5))))
            writer.flush()
            if number % 4 == 1:
                query(database, END)
        assert items(database) == []
        writer.write(piece(claim, log.sequence + 1, log.put(60)))
        writer.flush()
        assert writer.stored == log.sequence
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM audit") == [(61, 61)]
    assert items(database)[-1] == (60, "", "")


@pytest.mark.parametrize("lost", [b"COMMIT", b"BEGIN", b"waxtap.offsets AS o"])
def test_a_transaction_whose_answer_is_lost_counts_once(lost: bytes, database: Database) -> None:
    query(database, AUDITED)
    log = Log()
    with TcpRelay(port(database.dsn)) as proxy:
        to = whole(through(proxy, database.dsn))
        claim = to.claim(SHARE)
        with closing(to.open(claim)) as writer:
            for number in range(0, 30, 3):
                writer.write(piece(claim, number, log.put(number)))
                writer.flush()
                proxy.lose_answer(lost)
                rest = [log.put(number + 1), log.put(number + 2)]
                # the end of one and the beginning of the next come together
                writer.write(piece(claim, number + 2, *rest))
                writer.flush()
            writer.write(Batch(claim, [], 30, 30))
            writer.flush()
    assert proxy.lost
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM audit") == [(30, 30)]
    assert stored(database) == [(30,)]


def test_a_transaction_that_does_not_go_on_lets_go_of_its_locks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "REST_S", 0.3)
    query(database, AUDITED)
    to, log = whole(database.dsn), Log()
    claim = to.claim(SHARE)
    with capture_logs() as logs, closing(to.open(claim)) as writer:
        writer.write(piece(claim, 0, log.put(1), log.change("c", ENTRIES, {"id": 1})))
        writer.flush()
        until(lambda: not query(database, IDLE))
        writer.write(piece(claim, 0, log.put(2)))
        writer.flush()
        assert query(database, IDLE)
        until(lambda: not query(database, IDLE))
        writer.write(piece(claim, 4, log.put(3)))
        writer.flush()
    assert logs == []
    assert query(database, "SELECT id FROM audit ORDER BY n") == [(1,), (2,), (3,)]
    assert query(database, "SELECT id FROM entries") == [(1,)]


def test_a_newer_claim_does_not_wait_for_an_open_transaction(database: Database) -> None:
    to, log = whole(database.dsn), Log()
    old = to.claim(SHARE)
    with closing(to.open(old)) as writer:
        writer.write(piece(old, 1, log.put(1), log.put(2)))
        writer.flush()
        new = to.claim(SHARE)
        assert new.offsets == {SUBJECT: 1}
        with pytest.raises(FencedError):  # noqa: PT012 - either call may find out
            writer.write(piece(old, 3, log.put(3)))
            writer.flush()
    assert items(database) == [(1, "", "")]


def test_a_replay_in_a_transaction_is_stored_at_once(database: Database) -> None:
    query(database, AUDITED)
    to, log = whole(database.dsn), Log(5)
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(piece(claim, 6, log.put(1), log.put(2)))
        writer.replay([Log().put(9, "letter")])
        assert items(database) == [(1, "", ""), (9, "letter", "")]
        writer.write(piece(claim, 8, log.put(3)))
        writer.flush()
    assert [id_ for id_, _, _ in items(database)] == [1, 2, 3, 9]
    assert query(database, "SELECT id FROM audit ORDER BY n") == [(1,), (9,), (2,), (3,)]


@pytest.mark.parametrize("split", [True, False])
def test_a_refused_change_takes_its_transaction_back(split: bool, database: Database) -> None:
    to, log = whole(database.dsn), Log()
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text CHECK (a <> 'bad'), b text)")
    claim = to.claim(SHARE)
    first, second = [log.put(1), log.put(2)], [log.put(3), log.put(4, "bad"), log.put(5)]
    with closing(to.open(claim)) as writer, pytest.raises(PermanentError) as caught:  # noqa: PT012
        if split:
            writer.write(piece(claim, 1, *first))
            writer.write(piece(claim, 5, *second))
        else:
            writer.write(piece(claim, 5, *first, *second))
        writer.flush()
    assert caught.value.sequence == 4
    assert writer.stored == int(split)
    assert stored(database) == ([(1,)] if split else [(0,)])
    # without it, by another writer of the claim
    with closing(to.open(claim)) as writer:
        writer.write(piece(claim, 1, *first))
        writer.write(piece(claim, 5, second[0], second[2]))
        writer.flush()
        assert writer.stored == 5
    assert [id_ for id_, _, _ in items(database)] == [1, 2, 3, 5]


def test_values_may_wander_from_row_to_row(database: Database) -> None:
    """Collapsed the pieces are refused; one by one, in the source's order, they are not."""
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text UNIQUE, b text)")
    to, log = whole(database.dsn), Log()
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(piece(claim, 0, log.put(1, "x"), log.put(2, "y")))
        writer.flush()
        swap = [log.put(1, "z"), log.put(2, "x"), log.put(1, "y")]
        writer.write(piece(claim, 0, *swap))
        writer.flush()
        writer.write(piece(claim, 6, log.put(3, "z")))
        writer.flush()
    assert items(database) == [(1, "y", ""), (2, "x", ""), (3, "z", "")]


def test_a_constraint_is_checked_at_the_end_only(database: Database) -> None:
    query(
        database,
        "CREATE TABLE items (id bigint PRIMARY KEY, a text, b text);"
        "CREATE TABLE entries (id bigint PRIMARY KEY REFERENCES items DEFERRABLE)",
    )
    to, log = whole(database.dsn), Log()
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(piece(claim, 0, log.change("c", ENTRIES, {"id": 1})))
        writer.flush()
        writer.write(piece(claim, 2, log.put(1)))
        writer.flush()
        writer.write(piece(claim, 3, log.change("c", ENTRIES, {"id": 7})))
        with pytest.raises(PermanentError) as caught:
            writer.flush()
        assert caught.value.sequence == 3


def test_triggers_find_their_own_search_path(database: Database) -> None:
    """Also while a table is made in the middle of a transaction."""
    query(database, AUDITED)
    to, log = whole(database.dsn), Log()
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(piece(claim, 2, log.change("c", ENTRIES, {"id": 1}), log.put(1)))
        writer.flush()
    assert query(database, "SELECT count(*) FROM audit") == [(1,)]


def test_a_disk_without_room_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w+b", buffering=0)  # noqa: SIM115 - the spool closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: full)
    to, log = whole(database.dsn), Log()
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(piece(claim, 0, log.put(1)))
        with pytest.raises(FatalError, match="No space left") as caught:
            writer.flush()
    assert "TMPDIR" in caught.value.cure


def test_what_is_spooled_comes_back_as_it_was() -> None:
    log = Log()
    changes = [
        log.put(1, "\x00ü"),
        log.change("u", ENTRIES, {"id": 1}, missing=("a", "b"), json_nulls=("c",)),
        log.change("m")._replace(table=None, key=None, failed="x", last=False),
    ]
    spool = spooling.Spool()
    for round_ in range(2):
        spool.add(changes)
        spool.add(changes[:1])
        assert list(spool.pieces()) == [changes, changes[:1]], round_
        spool.clear()
        assert list(spool.pieces()) == []
    spool.close()
