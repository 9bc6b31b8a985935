"""Both decoders on the log of a real server, against each other and against SELECT."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from connectors.contracts.changes import UNAVAILABLE
from connectors.postgres.pgoutput.decoder import Decoder
from connectors.postgres.pgoutput.lsn import parse_lsn
from connectors.postgres.replication.catalog import ServerCatalog
from tests.integration.postgres_samples import SAMPLES, TEXTS, UNWRITABLE, Json, expected, loads
from tests.integration.postgres_type_tables import builtin_types, create_type_tables
from tests.unit import wal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from connectors.contracts.changes import Change
    from tests.servers.postgres import Database

    Session = Connection[tuple[object, ...]]

pytestmark = pytest.mark.servers

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "3",
    "bytea_output": "hex",
}


# Arrays whose elements the cast to text prints in another way than the type's own output.
AS_PRINTED = {"inet[]", "cidr[]", "character[]"}


@dataclass
class Source:
    """A database whose log is read."""

    session: Session
    catalog: ServerCatalog
    tables: int = 0

    def changes(self) -> list[Change]:
        """What was committed since the last call, as both decoders agree on it."""
        rows = self.session.execute(
            """SELECT lsn::text, data FROM pg_logical_slot_get_binary_changes('wal', NULL, NULL,
               'proto_version', '1', 'publication_names', 'wal', 'messages', 'true')"""
        ).fetchall()
        frames = [wal.xlog(parse_lsn(str(lsn)), cast("bytes", data)) for lsn, data in rows]
        fast, slow = (self._decode(frames, compiled=compiled) for compiled in (True, False))
        assert len(fast) == len(slow)
        for one, other in zip(fast, slow, strict=True):
            assert one._replace(envelope=b"") == other._replace(envelope=b"")
            assert _stable(one) == _stable(other)
        return fast

    def _decode(self, frames: list[bytes], *, compiled: bool) -> list[Change]:
        decoder = Decoder("s", "db", self.catalog, resume=None, system="1", compiled=compiled)
        decoder.feed(frames)
        changes: list[Change] = []
        while chunk := decoder.chunk(idle=True):
            changes += chunk.changes
        return changes

    def rows(self, table: sql.Identifier) -> list[dict[str, Json]]:
        """A table's rows as they should look in JSON."""
        columns = cast(
            "list[tuple[str, str]]",
            self.session.execute(
                """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
                   WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
                   ORDER BY attnum""",
                [table.as_string(self.session)],
            ).fetchall(),
        )
        shown = sql.SQL(",").join(
            sql.SQL(
                (
                    "to_jsonb({0})::text"
                    if type_name in AS_PRINTED
                    else "to_jsonb({0}::text[])::text"
                )
                if type_name.endswith("[]")
                else "CASE WHEN {0} IS NULL THEN NULL ELSE to_jsonb(format('%s', {0}))::text END"
            ).format(sql.SQL("(t.{})").format(sql.Identifier(name)))
            for name, type_name in columns
        )
        rows = self.session.execute(sql.SQL("SELECT {} FROM {} t").format(shown, table))
        return [
            {
                name: expected(type_name, None if printed is None else json.loads(str(printed)))
                for (name, type_name), printed in zip(columns, row, strict=True)
            }
            for row in rows
        ]


def _stable(change: Change) -> bytes:
    """The envelope's bytes without the one figure that differs from run to run."""
    head, _, rest = change.envelope.rpartition(b',"ts_ms":')
    return head + rest.partition(b",")[2]


def _row(change: Change, side: str) -> dict[str, Json]:
    body = cast("dict[str, Json]", loads(change.envelope))
    return cast("dict[str, Json]", body[side])


@pytest.fixture
def source(database: Database) -> Iterator[Source]:
    with closing(database.connect()) as session:
        for name, value in SETTINGS.items():
            session.execute("SELECT set_config(%s, %s, false)", [name, value])
        session.execute("CREATE PUBLICATION wal FOR ALL TABLES")
        session.execute("SELECT pg_create_logical_replication_slot('wal', 'pgoutput')")
        with closing(ServerCatalog(database.dsn, "s")) as catalog:
            yield Source(session, catalog)


def test_every_builtin_type(source: Source) -> None:
    session = source.session
    types = builtin_types(session)
    assert types.keys() <= SAMPLES.keys() | UNWRITABLE, "a type without samples"
    create_type_tables(session, types)
    changes = source.changes()
    by_table: dict[str, list[Change]] = {}
    for change in changes:
        assert change.table is not None
        by_table.setdefault(change.table.name, []).append(change)
    for name, oid in types.items():
        rows = source.rows(sql.Identifier(f"t_{oid}"))
        assert [_row(change, "after") for change in by_table[f"t_{oid}"]] == rows, name


def test_type_names_are_format_types(source: Source) -> None:
    declared = [
        "numeric(10,2)", "numeric(5)", "numeric(1000,0)", "varchar(20)", "varchar", "char(7)",
        "char", "bpchar", "bit(3)", "bit", '"bit"', "varbit(9)", "time(3)", "timetz(0)",
        "timestamp(3)", "timestamptz(6)", "interval", "interval(3)", "interval year",
        "interval year to month", "interval day to second(2)", "interval minute to second",
        "interval hour", "interval second(0)", "numeric(10,2)[]", "varchar(3)[][]", "char(2)[]",
        "timestamptz(1)[]", "interval(1)[]", "int[]", '"char"[]', "bit(4)[]",
    ]  # fmt: skip
    session = source.session
    if session.info.server_version >= 150000:
        declared += ["numeric(3,-2)", "numeric(2,5)"]
    for name in builtin_types(session):
        declared += [name] if name in UNWRITABLE else [name, f"{name}[]"]
    columns = sql.SQL(",").join(
        sql.SQL("{} {}").format(sql.Identifier(f"c{place}"), sql.SQL(name))
        for place, name in enumerate(declared)
    )
    session.execute(sql.SQL("CREATE TABLE t ({})").format(columns))
    session.execute("INSERT INTO t DEFAULT VALUES")
    (change,) = source.changes()
    assert change.table is not None
    printed = session.execute(
        """SELECT format_type(atttypid, atttypmod) FROM pg_attribute
           WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"""
    ).fetchall()
    assert [(column.type,) for column in change.table.columns] == printed


def test_types_that_are_not_built_in(source: Source) -> None:
    session = source.session
    session.execute(
        """CREATE SCHEMA "Sho""p";
           CREATE TYPE "Sho""p".mood AS ENUM ('sad', 'so, "so"');
           CREATE DOMAIN money_in AS numeric(10,2) CHECK (VALUE > 0);
           CREATE TYPE pair AS (a int, b text);
           CREATE TYPE span AS RANGE (subtype = float8);
           CREATE TABLE t (id int PRIMARY KEY, m "Sho""p".mood, ms "Sho""p".mood[], d money_in,
                           p pair, ps pair[], s span)"""
    )
    session.execute(
        """INSERT INTO t VALUES (1, 'so, "so"', '{sad,"so, \\"so\\""}', 1.5, '(1,"x,\\"")',
           ARRAY['(1,"x,\\"")'::pair, NULL], '[1,2)')"""
    )
    (change,) = source.changes()
    assert change.table is not None
    assert [(column.type, column.json, column.portable) for column in change.table.columns] == [
        ("integer", "number", True),
        ('"Sho""p".mood', "string", False),
        ('"Sho""p".mood[]', "array", False),
        ("public.money_in", "string", False),
        ("public.pair", "string", False),
        ("public.pair[]", "array", False),
        ("public.span", "string", False),
    ]
    assert [_row(change, "after")] == source.rows(sql.Identifier("t"))


NAMES = [
    'a"b',
    "c'd",
    "{e}",
    "g\\h\\n",
    "i%sj",
    "k\nl",
    "é漢😀",
    "select",
    "c0",
    "N" * 63,
    " ",
    "x",
]
KEYS = {"integer": ["1", "2", "3"], "text": [text for text in TEXTS if len(text) < 100]}
COLUMNS = [name for name in SAMPLES if name not in ("aclitem", '"char"', "bpchar", '"bit"')]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_random_tables_replayed_equal_select(source: Source, data: st.DataObject) -> None:
    session = source.session
    source.changes()  # what an example that was given up has left behind
    source.tables += 1
    number = source.tables
    table = sql.Identifier(f"{data.draw(st.sampled_from(NAMES))[:40]}{number}")
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
    types = [data.draw(st.sampled_from(sorted(KEYS)))]
    types += [data.draw(st.sampled_from(["text", *COLUMNS])) for _ in names[1:]]
    placed = data.draw(st.permutations(list(zip(names, types, strict=True))))
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in placed
    ]
    key = sql.Identifier(names[0])
    session.execute(
        sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
            table, sql.SQL(",").join(columns), key
        )
    )
    identity = data.draw(st.sampled_from(["DEFAULT", "FULL", "USING INDEX"]))
    index = sql.Identifier(f"u{number}")
    if identity == "USING INDEX":
        session.execute(sql.SQL("CREATE UNIQUE INDEX {} ON {} ({})").format(index, table, key))
    session.execute(
        sql.SQL("ALTER TABLE {} REPLICA IDENTITY {} {}").format(
            table, sql.SQL(identity), index if identity == "USING INDEX" else sql.SQL("")
        )
    )
    for name, type_ in placed:
        if type_ in ("text", "character varying", "bytea"):
            # Long values are stored outside the row, and left out of the log when unchanged.
            session.execute(
                sql.SQL("ALTER TABLE {} ALTER {} SET STORAGE EXTERNAL").format(
                    table, sql.Identifier(name)
                )
            )

    def value(type_: str, *, nullable: bool = True) -> sql.Composable:
        pool: list[str | None] = [*(SAMPLES[type_] if nullable else KEYS[type_])]
        if type_ in ("text", "character varying") and nullable:
            pool += ["L" * 9000, "é\n" * 3000]
        drawn = data.draw(st.sampled_from([*pool, None] if nullable else pool))
        return sql.SQL("{}::text::{}").format(sql.Literal(drawn), sql.SQL(type_))

    for _ in range(data.draw(st.integers(1, 4))):
        with session.transaction():
            for _ in range(data.draw(st.integers(1, 5))):
                chosen = value(types[0], nullable=False)
                where = sql.SQL("WHERE {} = {}").format(key, chosen)
                action = data.draw(st.sampled_from(["insert", "insert", "update", "key", "delete"]))
                if action == "delete":
                    session.execute(sql.SQL("DELETE FROM {} {}").format(table, where))
                elif action == "insert":
                    values = [
                        chosen if name == names[0] else value(type_) for name, type_ in placed
                    ]
                    session.execute(
                        sql.SQL("INSERT INTO {} VALUES ({}) ON CONFLICT DO NOTHING").format(
                            table, sql.SQL(",").join(values)
                        )
                    )
                else:
                    name, type_ = placed[data.draw(st.integers(0, len(placed) - 1))]
                    if action == "key" or name == names[0]:
                        name, new = names[0], value(types[0], nullable=False)
                        taken = sql.SQL("AND NOT EXISTS (SELECT FROM {} WHERE {} = {})").format(
                            table, key, new
                        )
                        where = sql.SQL("{} {}").format(where, taken)
                    else:
                        new = value(type_)
                    session.execute(
                        sql.SQL("UPDATE {} SET {} = {} {}").format(
                            table, sql.Identifier(name), new, where
                        )
                    )

    replayed: dict[Json, dict[str, Json]] = {}
    for change in source.changes():
        assert change.key is not None
        assert change.key.isascii()
        identity_value = cast("dict[str, Json]", loads(change.key))[names[0]]
        before, after = _row(change, "before"), _row(change, "after")
        old_value = before[names[0]] if before else identity_value
        old = replayed.pop(old_value) if change.op != "c" else {}
        if change.op == "d":
            assert identity_value == old_value
            continue
        for name in change.unavailable:
            assert after[name] == UNAVAILABLE
            after[name] = old[name]
        if identity == "FULL" and change.op == "u":
            assert before == old
            assert not change.unavailable
        replayed[identity_value] = after
    rows = {row[names[0]]: row for row in source.rows(table)}
    assert replayed == rows
