"""A publication that others change while it is read from."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.errors import ConfigError, GapError
from connectors.postgres.setup import publication_watch
from connectors.postgres.setup.publication_drift import terms
from tests.integration.postgres_capture import after, ids, make_source, read_changes, read_until
from tests.integration.postgres_snapshots import done, run

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from connectors.contracts.source import Checkpoint, Chunk, SourceReader
    from connectors.postgres.server import Connection
    from connectors.postgres.setup.publication import Publication
    from connectors.postgres.setup.publication_drift import Terms
    from tests.servers.postgres import Database, DatabaseFactory
    from tests.servers.standby import PairFactory

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Terms]:
    """What each look has seen; they follow one another at once."""
    seen: list[Terms] = []

    def looked(
        connection: Connection, found: Publication, wanted: Callable[[str, str], bool]
    ) -> Terms:
        seen.append(terms(connection, found, wanted))
        return seen[-1]

    monkeypatch.setattr(publication_watch, "terms", looked)
    monkeypatch.setattr(publication_watch, "INTERVAL_S", 0.05)
    monkeypatch.setattr(publication_watch, "RARELY_S", 0.05)
    return seen


@pytest.fixture
def items(database: Database) -> Database:
    run(
        database,
        "CREATE TABLE items (id int PRIMARY KEY, n int, body text)",
        "CREATE TABLE others (id int PRIMARY KEY)",
    )
    return database


def _told(logs: list[MutableMapping[str, object]], what: str, reader: SourceReader) -> None:
    """Read until the log tells it."""
    read_until(reader, lambda _: any(what in str(line.get("what", "")) for line in logs))


def test_what_others_change_is_told(items: Database, looks: list[Terms]) -> None:
    run(items, "CREATE PUBLICATION p FOR TABLE items, others WITH (publish_via_partition_root)")
    source = make_source(items.dsn, items.name, publication="p", create=False)
    run(items, f"SELECT pg_create_logical_replication_slot('waxtap_{items.name}', 'pgoutput')")
    with closing(source.open(None)) as reader, capture_logs() as logs:
        read_until(reader, bool)
        read_until(reader, lambda _: len(looks) > 1)
        run(items, "ALTER PUBLICATION p DROP TABLE others")
        _told(logs, "public.others: no longer published", reader)
        run(items, "ALTER PUBLICATION p SET TABLE items (id, n) WHERE (id > 0)")
        _told(logs, "public.items: another list of columns", reader)
        _told(logs, "public.items: another row filter", reader)
        run(items, "ALTER PUBLICATION p SET (publish = 'insert, update')")
        _told(logs, "delete, truncate: no longer published", reader)
        run(items, "ALTER PUBLICATION p SET (publish_via_partition_root = false)")
        _told(logs, "partitions are published one by one", reader)
        # It goes on with what is published, in the shape that the server tells.
        run(items, "INSERT INTO others VALUES (1)", "INSERT INTO items VALUES (-1), (1)")
        (change,) = read_changes(reader, 1)
        assert after(change) == {"id": 1, "n": None}
        # A table that is gone is no news, and one that comes back is read again.
        before = len(logs)
        run(items, "ALTER PUBLICATION p ADD TABLE others", "INSERT INTO others VALUES (2)")
        assert ids(read_changes(reader, 1)) == [2]
        run(items, "DROP TABLE others", "INSERT INTO items VALUES (2)")
        assert ids(read_changes(reader, 1)) == [2]
        assert not [line for line in logs[before:] if "others" in str(line.get("what"))]


def test_a_table_that_was_taken_out_of_ours_is_put_back_and_told_of(
    items: Database, looks: list[Terms]
) -> None:
    source = make_source(items.dsn, items.name, tables=["public.it*"])
    name = f"waxtap_{items.name}"
    with closing(source.open(None)) as reader, capture_logs() as logs:
        read_until(reader, lambda _: len(looks) > 1)
        run(items, f"ALTER PUBLICATION {name} DROP TABLE items")
        _told(logs, "public.items: no longer published", reader)
        read_until(
            reader, lambda _: any(line["event"] == "added to the publication" for line in logs)
        )
        run(items, "INSERT INTO items VALUES (1)")
        assert ids(read_changes(reader, 1)) == [1]


def _dropped(database: Database, reader: SourceReader) -> tuple[Checkpoint, GapError]:
    """The last checkpoint and the error of a source whose publication is made anew meanwhile."""
    name = f"waxtap_{database.name}"
    run(database, "INSERT INTO items VALUES (1)")
    chunks: list[Chunk] = read_until(reader, lambda seen: any(each.changes for each in seen))
    run(
        database,
        "INSERT INTO items VALUES (2)",
        f"DROP PUBLICATION {name}",
        "INSERT INTO items VALUES (3)",
        f"CREATE PUBLICATION {name} FOR TABLE items WITH (publish_via_partition_root)",
        "INSERT INTO items VALUES (4)",
    )

    def stored(seen: list[Chunk]) -> bool:
        if seen:
            reader.confirm(seen[-1].checkpoint)
            chunks.append(seen[-1])
        return False

    with pytest.raises(GapError) as caught:
        read_until(reader, stored)
    return chunks[-1].checkpoint, caught.value


def _goes_on(database: Database, stored: Checkpoint, error: GapError) -> None:
    """The gap is named by what is stored, and behind it all rows are read once more."""
    name = f"waxtap_{database.name}"
    token = f"unpublished:{name}@{stored.state['lsn']}"
    assert error.code == "postgres.publication_gone"
    assert token in error.cure
    source = make_source(
        database.dsn, database.name, tables=["public.items"], snapshot="initial", accept=[token]
    )
    with closing(source.open(stored)) as reader:
        chunks = read_until(reader, done)
        rows = [change for chunk in chunks for change in chunk.changes if change.op == "r"]
        assert ids(rows) == [1, 2, 3, 4]
        run(database, "INSERT INTO items VALUES (5)")
        assert ids(read_changes(reader, 1)) == [5]


def test_a_publication_that_is_made_anew_is_a_gap(items: Database) -> None:
    source = make_source(items.dsn, items.name, tables=["public.items"])
    with closing(source.open(None)) as reader:
        stored, error = _dropped(items, reader)
    # No other start gets any further, whatever publication there is by now.
    with closing(source.open(stored)) as again, pytest.raises(GapError):
        read_until(again, lambda _: False)
    _goes_on(items, stored, error)


def test_servers_that_go_on_without_a_publication_do_not_do_so_unseen(
    postgres_pair: PairFactory, database_factory: DatabaseFactory, looks: list[Terms]
) -> None:
    """PostgreSQL 18 leaves changes out without a word."""
    primary, _ = postgres_pair()
    database = database_factory(primary)
    run(database, "CREATE TABLE items (id int PRIMARY KEY, n int, body text)")
    source = make_source(database.dsn, database.name, tables=["public.items"])
    with closing(source.open(None)) as reader:
        read_until(reader, lambda _: len(looks) > 1)
        stored, error = _dropped(database, reader)
    _goes_on(database, stored, error)


def test_a_publication_that_is_gone_at_the_start(items: Database) -> None:
    source = make_source(items.dsn, items.name, tables=["public.items"])
    with closing(source.open(None)) as reader:
        (chunk,) = read_until(reader, bool)
    run(items, f"DROP PUBLICATION waxtap_{items.name}", "INSERT INTO items VALUES (1)")
    with pytest.raises(GapError) as caught:
        source.open(chunk.checkpoint)
    assert caught.value.code == "postgres.publication_gone"
    token = f"unpublished:waxtap_{items.name}@{chunk.checkpoint.state['lsn']}"
    assert token in caught.value.cure
    accepting = make_source(items.dsn, items.name, tables=["public.items"], accept=[token])
    with closing(accepting.open(chunk.checkpoint)) as reader:
        run(items, "INSERT INTO items VALUES (2)")
        assert ids(read_changes(reader, 1)) == [2]
    with pytest.raises(ConfigError):
        make_source(items.dsn, items.name, publication="nowhere", create=False).open(None)
