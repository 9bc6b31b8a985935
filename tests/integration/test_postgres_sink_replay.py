"""Dead letters in the PostgreSQL sink: named when they come up, and each of them counted once."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
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
)
from tests.integration.tcp_relay import TcpRelay
from tests.integration.test_postgres_sink_failures import AUDITED, port, through

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def test_the_first_change_of_a_table_that_does_not_fit_is_named(database: Database) -> None:
    log = Log(10)
    other = shape("others", ID)
    changes = [log.put(1), log.change("c", other, {"id": 1}), log.change("c", other, {"id": 2})]
    query(database, "CREATE TABLE items (id bigint PRIMARY KEY, a text, b text)")
    assert refused(database, *changes, create_tables=False).sequence == 12
    keyless = shape("keyless", ID, key=())
    assert refused(database, log.put(1), log.change("c", keyless, {"id": 1})).sequence == 15
    wider = shape("items", ID, Column("a", "text"), Column("new", "text"))
    fitting, change = log.put(2), log.change("c", wider, {"id": 1, "a": "", "new": ""})
    assert refused(database, fitting, change, schema_changes="refuse").sequence == 17


def test_a_table_that_the_server_refuses_to_make_is_named(database: Database) -> None:
    log = Log(10)
    twice = shape("odd", ID, Column("a", "text"), Column("a", "text"))
    error = refused(database, log.put(1), log.change("c", twice, {"id": 1, "a": ""}))
    assert (error.sequence, error.where) == (12, "public.odd")


def test_a_change_that_cannot_be_read_is_named(database: Database) -> None:
    log = Log(10)
    torn = log.put(2)._replace(envelope=b'{"op":"c","after":')
    error = refused(database, log.put(1), torn)
    assert (error.code, error.sequence) == ("postgres.unreadable_change", torn.sequence)


def test_a_replay_that_is_refused_stores_none_of_it(database: Database) -> None:
    to, log = sink(database.dsn), Log()
    deliver(to, [log.put(1, "a")])
    query(database, "ALTER TABLE items ADD CHECK (a <> 'poison')")
    letters = [log.put(2, "b"), log.put(3, "poison"), log.put(4, "c")]
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer, pytest.raises(PermanentError) as caught:
        writer.replay(letters)
    assert caught.value.sequence == 3
    assert items(database) == [(1, "a", "")]
    assert query(database, "SELECT * FROM waxtap.replayed") == []


@pytest.mark.parametrize("lost", [b"COMMIT", b"BEGIN", b"INTO waxtap.replayed"])
def test_a_replay_whose_answer_is_lost_counts_once(lost: bytes, database: Database) -> None:
    query(database, AUDITED)
    log = Log()
    with TcpRelay(port(database.dsn)) as proxy:
        to = sink(through(proxy, database.dsn))
        claim = to.claim(SHARE)
        with closing(to.open(claim)) as writer:
            for _ in range(5):
                proxy.lose_answer(lost)
                writer.replay([log.put(log.sequence + 1)])
    assert proxy.lost >= 1
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM audit") == [(5, 5)]


def test_letters_of_one_message_count_each(database: Database) -> None:
    """A truncate that waited for several rows is one message, and a letter for each row."""
    to, log = sink(database.dsn), Log()
    deliver(to, [log.put(1), log.put(2), log.put(3)])

    def deletion(id_: int) -> Delivered:
        return log.delete(id_)._replace(sequence=2)

    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.replay([deletion(1)])
        writer.write(batch(claim, log.put(1, "new")))
        writer.replay([deletion(1), deletion(2)])
    assert items(database) == [(1, "new", ""), (3, "", "")]


def test_sequences_that_are_given_anew_are_other_letters(database: Database) -> None:
    to, log = sink(database.dsn), Log(4)
    deliver(to, [log.put(1, "a")])
    letter = log.put(2, "old")
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.replay([letter])
    shorter = to.claim(msgspec.structs.replace(SHARE, end=5))
    with closing(to.open(shorter)) as writer:
        writer.replay([Log(5).change("c", ITEMS, {"id": 2, "a": "new", "b": ""})])
    assert items(database) == [(1, "a", ""), (2, "new", "")]
