"""Tables that hold values of every built-in PostgreSQL type."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

from psycopg import sql

from connectors.postgres.pgoutput.types import BUILTIN
from tests.integration.postgres_samples import SAMPLES, UNWRITABLE

if TYPE_CHECKING:
    from psycopg import Connection

    Session = Connection[tuple[object, ...]]


def builtin_types(session: Session) -> dict[str, int]:
    """Every type of pg_catalog that a column may have, arrays aside."""
    rows = session.execute(
        """SELECT CASE typname WHEN 'bpchar' THEN 'bpchar' WHEN 'bit' THEN '"bit"'
                  ELSE format_type(oid, NULL) END, oid::int8
           FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b','r','m')
           AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = pg_type.oid)"""
    )
    return cast("dict[str, int]", dict(cast("list[tuple[str, int]]", rows.fetchall())))


def create_type_tables(session: Session, types: dict[str, int]) -> None:
    """One table a type, `t_<oid>`, with every sample alone and in arrays."""
    (user,) = session.execute("SELECT current_user").fetchone() or ("",)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for name, oid in types.items():
        assert BUILTIN[oid].name == {"bpchar": "character", '"bit"': "bit"}.get(name, name)
        table = sql.Identifier(f"t_{oid}")
        array = "" if name in UNWRITABLE else f", many {name}[]"
        session.execute(
            sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, one {}{})").format(
                table, sql.SQL(name), sql.SQL(array)
            )
        )
        values = [
            value.format(user=user) if name == "aclitem" else value
            for value in SAMPLES.get(name, [])
        ]
        with session.transaction():
            session.execute(sql.SQL("INSERT INTO {} VALUES (0)").format(table))
            for number, value in enumerate(values, 1):
                chosen = [chance.choice([None, *values]) for _ in range(chance.randrange(5))]
                many = [value, *chosen]
                elements = sql.SQL(",").join(
                    sql.SQL("{}::text::{}").format(sql.Literal(item), sql.SQL(name))
                    for item in many
                )
                template = "ARRAY[ARRAY[{0}],ARRAY[{0}]]" if number % 3 == 0 else "ARRAY[{0}]"
                shape = sql.SQL(template + "::{1}[]").format(elements, sql.SQL(name))
                session.execute(
                    sql.SQL("INSERT INTO {} VALUES ({}, {}::text::{}, {})").format(
                        table, sql.Literal(number), sql.Literal(value), sql.SQL(name), shape
                    )
                )
            if values:
                session.execute(
                    sql.SQL("INSERT INTO {} SELECT -1, one, {} FROM {} WHERE id = 1").format(
                        table, sql.SQL(f"'{{}}'::{name}[]"), table
                    )
                )
