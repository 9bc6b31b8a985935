"""Each thing that must be set up first is one clear error with its cure."""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError, FatalError, GapError, RetryableError
from control.servers.ports import free_port
from tests.integration.postgres_capture import ids, make_source, read_changes
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import Database, DatabaseFactory, PostgresFactory

    Connection = psycopg.Connection[tuple[object, ...]]

pytestmark = pytest.mark.servers


@pytest.fixture
def server(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY)")
        yield connection


@pytest.fixture
def role(database: Database, server: Connection) -> Iterator[str]:
    """A login role without any right."""
    name = f"role_{secrets.token_hex(4)}"
    server.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    server.execute(f"DROP OWNED BY {name} CASCADE")
    server.execute(f"DROP ROLE {name}")


def refused(
    dsn: str, name: str, resume: Checkpoint | None = None, **settings: object
) -> FatalError:
    """The error that `open` raises; it leaves nothing open."""
    with pytest.raises(FatalError) as caught:
        make_source(dsn, name, **settings).open(resume)  # type: ignore[arg-type]
    assert caught.value.message
    assert caught.value.cure
    return caught.value


def begun(database: Database, connection: Connection) -> Checkpoint:
    """The checkpoint of a source that has read one row."""
    reader = make_source(database.dsn, database.name).open(None)
    with closing(reader):
        anchor = reader.read()
        assert anchor is not None
        connection.execute("INSERT INTO items VALUES (0)")
        chunk = None
        while chunk is None or not chunk.changes:
            chunk = reader.read()
    until(lambda: not active(connection, f"waxtap_{database.name}"))
    return chunk.checkpoint


def active(connection: Connection, slot: str) -> bool:
    return bool(
        connection.execute(
            "SELECT FROM pg_replication_slots WHERE slot_name = %s AND active", [slot]
        ).fetchall()
    )


def test_a_database_without_an_encoding(database: Database, server: Connection) -> None:
    name = f"{database.name}_ascii"
    server.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        error = refused(database.server.dsn(name), database.name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert (type(error), error.code) == (ConfigError, "postgres.encoding")


def test_wal_level(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory({"wal_level": "replica"})
    error = refused(server.dsn(), "shop")
    assert isinstance(error, ConfigError)
    assert error.code == "postgres.wal_level"
    assert "ALTER SYSTEM SET wal_level = logical" in error.cure


def test_no_free_slot_and_no_free_sender(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory({"max_replication_slots": "2", "max_wal_senders": "1"})
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY)")
        for number in range(2):
            connection.execute(
                "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"s{number}"]
            )
        error = refused(server.dsn(), "shop")
        assert error.code == "postgres.no_free_slot"
        assert "max_replication_slots" in error.cure
        connection.execute("SELECT pg_drop_replication_slot('s0')")
        with closing(make_source(server.dsn(), "shop").open(None)):
            error = refused(server.dsn(), "other")
        assert error.code == "postgres.no_free_sender"
        assert "max_wal_senders" in error.cure


def test_missing_replication_right(database: Database, server: Connection, role: str) -> None:
    error = refused(database.server.dsn(database.name, user=role), database.name)
    assert error.code == "postgres.replication_right"
    assert error.cure == f'ALTER ROLE "{role}" REPLICATION'


def test_a_role_that_may_not_create_the_publication(
    database: Database, server: Connection, role: str
) -> None:
    server.execute(f"ALTER ROLE {role} REPLICATION")
    error = refused(database.server.dsn(database.name, user=role), database.name)
    assert error.code == "postgres.publication_rights"
    assert 'CREATE PUBLICATION "waxtap_' in error.cure
    assert '"public"."items"' in error.cure
    # What the message asks for is enough, without any further right.
    server.execute(error.cure.split("`")[1])
    source = make_source(
        database.server.dsn(database.name, user=role),
        database.name,
        create=False,
        slot=f"made_{database.name}",
    )
    server.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"made_{database.name}"]
    )
    with closing(source.open(None)) as reader:
        server.execute("INSERT INTO items VALUES (1)")
        assert ids(read_changes(reader, 1)) == [1]


def test_the_documented_least_rights_suffice(
    database: Database, server: Connection, role: str
) -> None:
    server.execute(f"ALTER ROLE {role} REPLICATION")
    server.execute(f"GRANT CREATE ON DATABASE {database.name} TO {role}")
    server.execute(f"ALTER TABLE items OWNER TO {role}")
    source = make_source(database.server.dsn(database.name, user=role), database.name)
    with closing(source.open(None)) as reader:
        server.execute("INSERT INTO items VALUES (1)")
        assert ids(read_changes(reader, 1)) == [1]
    assert len(source.drop()) == 2


def test_slot_in_use_names_who_uses_it(database: Database, server: Connection) -> None:
    name = f"waxtap_{database.name}"
    server.execute("CREATE PUBLICATION theirs FOR TABLE items")
    server.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    with closing(
        psycopg.connect(
            database.dsn, replication="database", application_name="their_reader", autocommit=True
        )
    ) as theirs:
        theirs.execute(
            f"START_REPLICATION SLOT {name} LOGICAL 0/0"
            " (proto_version '1', publication_names 'theirs')".encode()
        )
        error = refused(database.dsn, database.name)
        assert error.code == "postgres.slot_in_use"
        assert f"pid {theirs.pgconn.backend_pid}" in error.message
        assert "their_reader" in error.message
        assert "127.0.0.1" in error.message
        assert active(server, name)


def test_a_slot_of_another_plugin_or_database(
    database: Database, server: Connection, database_factory: DatabaseFactory
) -> None:
    name = f"waxtap_{database.name}"
    server.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [name])
    error = refused(database.dsn, database.name)
    assert (error.code, error.where) == ("postgres.slot_plugin", f"slot {name}")
    assert "test_decoding" in error.message
    server.execute("SELECT pg_drop_replication_slot(%s)", [name])

    server.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
    assert "physical" in refused(database.dsn, database.name).message
    server.execute("SELECT pg_drop_replication_slot(%s)", [name])

    other = database_factory()
    with closing(other.connect()) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    error = refused(database.dsn, database.name)
    assert error.code == "postgres.slot_database"
    assert other.name in error.message


def test_replica_identity_names_every_table_and_its_cure(
    database: Database, server: Connection
) -> None:
    server.execute("CREATE TABLE keyless (id int)")
    server.execute('CREATE TABLE "My Table" (id int PRIMARY KEY)')
    server.execute('ALTER TABLE "My Table" REPLICA IDENTITY NOTHING')
    server.execute("CREATE TABLE indexed (id int NOT NULL)")
    server.execute("CREATE UNIQUE INDEX by_id ON indexed (id)")
    server.execute("ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_id")
    server.execute("CREATE TABLE parted (id int) PARTITION BY RANGE (id)")
    server.execute("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9)")
    error = refused(database.dsn, database.name)
    assert error.code == "postgres.replica_identity"
    assert "public.keyless (no primary key)" in error.message
    assert "public.My Table (replica identity NOTHING)" in error.message
    assert "public.parted_1 (no primary key)" in error.message
    assert "indexed" not in error.message
    # The cure can be run as it stands.
    for statement in error.cure.split("run ")[1].split(", or")[0].split("; "):
        server.execute(statement.encode())
    make_source(database.dsn, database.name).open(None).close()


def test_publication_and_slot_missing_with_create_false(
    database: Database, server: Connection
) -> None:
    settings: dict[str, object] = {"create": False, "publication": "theirs", "slot": "absent_slot"}
    error = refused(database.dsn, database.name, None, **settings)
    assert (error.code, error.where) == ("postgres.publication_missing", "publication theirs")
    server.execute("CREATE PUBLICATION theirs FOR TABLE items")
    error = refused(database.dsn, database.name, None, **settings)
    assert (error.code, error.where) == ("postgres.slot_unknown", "slot absent_slot")


def test_a_publication_that_lacks_something(database: Database, server: Connection) -> None:
    server.execute("CREATE TABLE extra (id int PRIMARY KEY)")
    server.execute("CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    server.execute("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9)")
    server.execute("CREATE PUBLICATION theirs FOR TABLE items WITH (publish = 'insert')")
    server.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [database.name])
    settings: dict[str, object] = {
        "create": False,
        "publication": "theirs",
        "slot": database.name,
        "tables": ["public.*"],
    }
    error = refused(database.dsn, database.name, None, **settings)
    assert error.code == "postgres.publication_operations"
    assert "update, delete, truncate" in error.message
    server.execute(error.cure.encode())
    error = refused(database.dsn, database.name, None, **settings)
    assert error.code == "postgres.publication_tables"
    assert error.message == "it lacks public.extra, public.parted"
    server.execute(error.cure.split(", or")[0].encode())
    error = refused(database.dsn, database.name, None, **settings)
    assert error.code == "postgres.publication_partitions"
    server.execute(error.cure.encode())
    make_source(database.dsn, database.name, **settings).open(None).close()  # type: ignore[arg-type]


def test_no_table_matches(database: Database, server: Connection) -> None:
    error = refused(database.dsn, database.name, tables=["public.Itmes", "sales.*"])
    assert error.code == "postgres.no_tables"
    assert "public.Itmes, sales.*" in error.message


def test_a_slot_that_somebody_else_advanced(database: Database, server: Connection) -> None:
    checkpoint = begun(database, server)
    server.execute("INSERT INTO items VALUES (1)")
    server.execute(
        "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [f"waxtap_{database.name}"]
    )
    error = refused(database.dsn, database.name, checkpoint)
    assert isinstance(error, GapError)
    assert error.code == "postgres.slot_ahead"
    lsn = checkpoint.state["lsn"]
    token = f"gap:waxtap_{database.name}@{lsn}"
    assert token in error.cure
    # Accepted, it goes on with what there is.
    accepting = make_source(database.dsn, database.name, accept=[token])
    with closing(accepting.open(checkpoint)) as reader:
        first = reader.read()
        assert first is not None
        assert first.checkpoint.position == checkpoint.position
        server.execute("INSERT INTO items VALUES (2)")
        assert ids(read_changes(reader, 1)) == [2]
    # Acceptance of one gap is none of the next.
    later = Checkpoint(checkpoint.position, {**checkpoint.state, "lsn": "0/1"})
    with pytest.raises(GapError):
        accepting.open(later)


def test_a_slot_that_is_gone(database: Database, server: Connection) -> None:
    checkpoint = begun(database, server)
    server.execute("SELECT pg_drop_replication_slot(%s)", [f"waxtap_{database.name}"])
    error = refused(database.dsn, database.name, checkpoint)
    assert isinstance(error, GapError)
    assert error.code == "postgres.slot_missing"
    token = f"gap:waxtap_{database.name}@{checkpoint.state['lsn']}"
    accepting = make_source(database.dsn, database.name, accept=[token])
    with closing(accepting.open(checkpoint)) as reader:
        server.execute("INSERT INTO items VALUES (2)")
        assert ids(read_changes(reader, 1)) == [2]


def test_another_cluster_and_a_log_that_ends_too_early(
    database: Database, server: Connection
) -> None:
    checkpoint = begun(database, server)
    other = Checkpoint(checkpoint.position, {**checkpoint.state, "system": "1"})
    error = refused(database.dsn, database.name, other)
    assert (type(error), error.code) == (GapError, "postgres.other_system")
    future = Checkpoint(checkpoint.position, {**checkpoint.state, "lsn": "FFFF/0"})
    error = refused(database.dsn, database.name, future)
    assert (type(error), error.code) == (GapError, "postgres.server_behind")
    error = refused(database.dsn, database.name, Checkpoint("", {"file": "binlog.1"}))
    assert error.code == "postgres.invalid_checkpoint"


def test_a_slot_whose_log_was_removed(
    postgres_factory: PostgresFactory, database_factory: DatabaseFactory
) -> None:
    database = database_factory(postgres_factory({"max_slot_wal_keep_size": "1MB"}))
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY)")
        checkpoint = begun(database, connection)
        for _ in range(4):
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("INSERT INTO items SELECT coalesce(max(id), 0) + 1 FROM items")
        connection.execute("CHECKPOINT")
        error = refused(database.dsn, database.name, checkpoint)
        assert (type(error), error.code) == (GapError, "postgres.slot_lost")
        assert "max_slot_wal_keep_size" in error.cure
        token = f"gap:waxtap_{database.name}@{checkpoint.state['lsn']}"
        theirs = refused(database.dsn, database.name, checkpoint, create=False)
        assert theirs.cure.startswith("SELECT pg_drop_replication_slot(")
        accepting = make_source(database.dsn, database.name, accept=[token])
        with closing(accepting.open(checkpoint)) as reader:
            connection.execute("INSERT INTO items VALUES (99)")
            assert ids(read_changes(reader, 1)) == [99]


def test_a_slot_that_waits_for_an_old_transaction(database: Database, server: Connection) -> None:
    with closing(psycopg.connect(database.dsn)) as old:
        old.execute("INSERT INTO items VALUES (1)")
        with pytest.raises(RetryableError) as caught:
            make_source(database.dsn, database.name).open(None)
    assert caught.value.code == "postgres.slot_waits"


def test_a_wrong_login_and_a_server_that_is_not_there(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory(password="right-word")
    wrong = server.dsn().replace("right-word", "s3cret-word")
    error = refused(wrong, "shop")
    assert error.code == "postgres.login"
    assert "s3cret-word" not in str(error)
    unreachable = f"host=127.0.0.1 port={free_port()} password=s3cret-word"
    with pytest.raises(RetryableError) as caught:
        make_source(unreachable, "shop").open(None)
    assert caught.value.code == "postgres.unreachable"
    assert "s3cret-word" not in str(caught.value)
