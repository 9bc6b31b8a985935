"""The parts of the PostgreSQL source that need no server."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from connectors.contracts.changes import Change, TableSchema
from connectors.contracts.source import Checkpoint, Chunk
from connectors.errors import ConfigError, FatalError, GapError, RetryableError, WaxtapError
from connectors.postgres.conninfo import application_name, ordinary, replication
from connectors.postgres.replication.stream_errors import stream_error
from connectors.postgres.replication.table_filter import TableFilter
from connectors.postgres.server import connect
from connectors.postgres.setup.inventory import Table, select, storage
from connectors.postgres.setup.patterns import parse_pattern, parse_patterns
from connectors.postgres.setup.preflight import check_version
from connectors.postgres.setup.settings import default_name, resolve
from connectors.postgres.spec import SourceSpec
from connectors.reconnection import delay


@pytest.mark.parametrize(
    ("pattern", "schema", "table", "matches"),
    [
        ("public.*", "public", "users", True),
        ("public.*", "publics", "users", False),
        ("*.*", "sales", "Anything At All", True),
        ("*.users", "sales", "users", True),
        ("*.users", "sales", "users2", False),
        ("sales.order_*", "sales", "order_items", True),
        ("sales.order_*", "sales", "order", False),
        ("sales.*_old_*", "sales", "a_old_b", True),
        ('"Odd Schema"."My Table"', "Odd Schema", "My Table", True),
        ('"Odd Schema"."My Table"', "odd schema", "my table", False),
        ('"a.b"."c""d"', "a.b", 'c"d', True),
        ('public."*"', "public", "x", False),
        ('public."*"', "public", "*", True),
        ("Public.Users", "public", "users", True),
        ("Public.Users", "Public", "Users", False),
        ("public.a+b", "public", "aab", False),
        ("*.*", "pg_catalog", "pg_class", False),
        ("*.*", "pg_toast", "x", False),
        ("*.*", "information_schema", "sql_features", False),
        ("*.*", "waxtap", "offsets", False),
        ("waxtap.*", "waxtap", "offsets", False),
        ("*.*", "pgstuff", "x", True),
    ],
)
def test_patterns(pattern: str, schema: str, table: str, matches: bool) -> None:
    assert parse_pattern(pattern).matches(schema, table) is matches


@pytest.mark.parametrize(
    "text",
    [
        "",
        "users",
        "a.b.c",
        "public.",
        ".users",
        '"open.users',
        '"a"b.c',
        'public."a"b',
        " .x",
        "a.",
    ],
)
def test_malformed_patterns_are_config_errors(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pattern(text)
    assert caught.value.code == "postgres.table_pattern"


def test_no_pattern_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        parse_patterns(())


def test_patterns_know_whether_they_take_whole_schemas() -> None:
    texts = ("*.*", "public.*", "sh*.*", "*.users", 'public."*"')
    patterns = parse_patterns(texts)
    assert [pattern.whole for pattern in patterns] == [True, True, True, False, False]
    assert [pattern.every for pattern in patterns] == [True, False, False, False, False]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://ann:pw@db.example:6000/shop?sslmode=verify-full&options=-c%20work_mem%3D8MB"
        "&application_name=mine&keepalives_idle=99",
        "host=db.example port=6000 user=ann password=pw dbname=shop sslmode=verify-full"
        " options='-c work_mem=8MB' application_name=mine keepalives_idle=99",
    ],
)
def test_the_users_dsn_keeps_working_and_ours_is_pinned(dsn: str) -> None:
    parameters = conninfo_to_dict(replication(dsn, "shop"))
    expected = {
        "host": "db.example",
        "port": "6000",
        "user": "ann",
        "password": "pw",
        "dbname": "shop",
        "sslmode": "verify-full",
        "replication": "database",
        "application_name": "waxtap/shop",
        "client_encoding": "UTF8",
        "keepalives": "1",
        "keepalives_idle": "99",
        "connect_timeout": "10",
    }
    assert {key: str(parameters[key]) for key in expected} == expected
    options = str(parameters["options"])
    assert options.startswith("-c work_mem=8MB ")
    for pinned in (
        "TimeZone=UTC",
        "DateStyle=ISO",
        "IntervalStyle=iso_8601",
        "extra_float_digits=3",
        "bytea_output=hex",
        "lc_monetary=C",
    ):
        assert f"-c {pinned}" in options
    assert "replication" not in conninfo_to_dict(ordinary(dsn, "shop"))


def test_options_from_the_environment_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=9MB")
    options = str(conninfo_to_dict(replication("host=h", "shop"))["options"])
    assert options.startswith("-c work_mem=9MB ")
    assert "TimeZone=UTC" in options


@pytest.mark.parametrize(
    "dsn",
    [
        "s3cret-word",
        "host=h password=s3cret-word junk",
        "postgresql://u:s3cret-word@h:x/?y=z",
        "postgresql://u:p@s3cret-word@h/shop",
        "postgresql://u:p/s3cret-word@h/shop",
    ],
)
def test_a_malformed_dsn_is_named_without_its_contents(dsn: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replication(dsn, "shop")
    assert caught.value.code == "postgres.dsn"
    assert "s3cret-word" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("port=s3cret-word", 'option "port"'),
        ("port=70000", "invalid port number"),
        ("sslmode=s3cret-word", "invalid sslmode value"),
        ("connect_timeout=s3cret-word", "bad value for connect_timeout"),
    ],
)
def test_a_value_that_libpq_cannot_use_is_not_tried_again(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(f"host=127.0.0.1 {setting}", "shop")
    assert caught.value.code == "postgres.dsn"
    assert said in caught.value.message
    assert "s3cret-word" not in str(caught.value)


def test_application_names_fit_what_servers_keep() -> None:
    assert application_name("shop") == "waxtap/shop"
    assert application_name("b\u00fccher") == "waxtap/b?cher"
    assert len(application_name("x" * 100)) == 63


def test_default_names_are_valid_slot_names_and_never_collide() -> None:
    assert default_name("shop_1") == "waxtap_shop_1"
    names = [default_name(name) for name in ("shop-1", "shop.1", "Shop_1", "x" * 80, "x" * 81)]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) <= 63
        assert name.replace("_", "").isalnum()
        assert name == name.lower()


def test_settings_refuse_bad_names() -> None:
    spec = SourceSpec.model_validate({"type": "postgres", "dsn": "host=h", "slot": "My-Slot"})
    with pytest.raises(ConfigError) as caught:
        resolve("shop", spec)
    assert caught.value.code == "postgres.slot_name"
    assert "host=h" not in repr(
        resolve("shop", SourceSpec.model_validate({"type": "postgres", "dsn": "host=h"}))
    )


def test_servers_older_than_13_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        check_version(120022, "db:5432")
    assert caught.value.code == "postgres.version"
    assert "PostgreSQL 12" in caught.value.message
    check_version(130000, "db:5432")


@pytest.mark.parametrize(
    ("state", "message", "kind", "code"),
    [
        ("", "server closed the connection", RetryableError, "postgres.connection_lost"),
        ("57P01", "terminating connection", RetryableError, "postgres.connection_lost"),
        ("57P03", "the database system is starting up", RetryableError, "postgres.connection_lost"),
        ("53300", "too many connections", RetryableError, "postgres.connection_lost"),
        ("55006", "is active for PID 7", RetryableError, "postgres.slot_held"),
        ("55000", "cannot read from logical slot", GapError, "postgres.slot_lost"),
        ("55000", "requires wal_level >= logical", ConfigError, "postgres.wal_level"),
        ("58P01", "WAL segment has already been removed", GapError, "postgres.wal_removed"),
        ("42704", 'replication slot "s" does not exist', GapError, "postgres.slot_missing"),
        ("42704", 'publication "p" does not exist', GapError, "postgres.publication_gone"),
        ("42501", "permission denied", ConfigError, "postgres.replication_right"),
        ("XX000", "something broke", FatalError, "postgres.stream_failed"),
    ],
)
def test_what_stream_errors_mean(
    state: str, message: str, kind: type[WaxtapError], code: str
) -> None:
    error = stream_error(state, message, "s")
    assert (type(error), error.code) == (kind, code)
    assert message in error.message


def test_backoff_doubles_up_to_ten_seconds() -> None:
    for failures, longest in [(0, 0.1), (1, 0.2), (5, 3.2), (7, 10.0), (10_000, 10.0)]:
        delays = [delay(failures) for _ in range(200)]
        assert longest / 2 <= min(delays) <= max(delays) <= longest
        assert len(set(delays)) > 1


def table(
    oid: int, name: str, *, partitioned: bool = False, ancestors: tuple[int, ...] = ()
) -> Table:
    return Table(oid, "public", name, partitioned, ancestors, "d", identified=True)


def test_partitions_are_taken_with_their_table_or_else_alone() -> None:
    root = table(1, "events", partitioned=True)
    middle = table(2, "events_2024", partitioned=True, ancestors=(1,))
    leaf = table(3, "events_2024_01", ancestors=(2, 1))
    other = table(4, "events_2025", ancestors=(1,))
    tables = [root, middle, leaf, other]
    assert select(tables, [parse_pattern("public.*")]) == [root]
    assert storage(tables, [root]) == [leaf, other]
    assert select(tables, [parse_pattern("public.events_2024*")]) == [middle]
    assert storage(tables, [middle]) == [leaf]
    assert select(tables, [parse_pattern("public.events_2024_01")]) == [leaf]


def change(name: str, transaction: str, last: bool, schema: str = "public") -> Change:
    shape = TableSchema("shop", schema, name, (), ())
    return Change("c", shape, "p", None, transaction, last, b"{}")


def filtered(*changes: Change) -> list[tuple[str, bool]]:
    chunk = Chunk("shop", list(changes), Checkpoint("p", {}), {})
    TableFilter([parse_pattern("public.a")]).apply(chunk)
    return [(each.transaction, each.last) for each in chunk.changes]


def test_unwanted_changes_leave_and_the_last_mark_stays_in_its_transaction() -> None:
    assert filtered(change("a", "1", False), change("b", "1", True)) == [("1", True)]
    assert filtered(change("a", "1", True), change("b", "2", True)) == [("1", True)]
    assert filtered(change("b", "1", False), change("a", "1", True)) == [("1", True)]
    assert filtered(change("b", "1", True)) == []
    assert filtered(change("a", "1", True, schema="waxtap")) == []
    message = Change("m", None, "p", None, "3", True, b"{}")
    assert filtered(message) == [("3", True)]
