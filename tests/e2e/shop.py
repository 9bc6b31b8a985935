"""The tables that the chaos workload writes: every kind of key, identity and awkward name."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg
from psycopg import sql

_SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE >= 0);

CREATE TABLE customers (
    id bigint PRIMARY KEY, name text, tags text[], profile jsonb, balance numeric(20,4),
    born date, seen timestamptz, active boolean, score double precision, avatar bytea, mood mood
);
CREATE TABLE orders (
    region integer, number bigint, state text NOT NULL DEFAULT 'new', total price,
    placed timestamp, took interval, grid integer[][], valid tstzrange, origin inet,
    PRIMARY KEY (region, number)
);
CREATE TABLE documents (id uuid PRIMARY KEY, title text, body text, attachment bytea, revision int);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;

CREATE TABLE articles (id integer PRIMARY KEY, title text, body text, revision integer);
ALTER TABLE articles REPLICA IDENTITY FULL;

CREATE TABLE by_index (
    place integer NOT NULL, code text NOT NULL, value text, UNIQUE (code, place)
);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_place_key;

CREATE TABLE counters (id integer PRIMARY KEY, hits bigint NOT NULL);
CREATE TABLE scratch (id bigserial PRIMARY KEY, value text);
CREATE TABLE scraps (id bigserial PRIMARY KEY, value text);

CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."Ünï.cöde %s > *" (
    "key of" text PRIMARY KEY, "from" text, "a""b" integer[], "select.x" boolean, "tab	bed" "char"
);
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is compared.

    Attributes:
        schema: Its schema.
        name: Its name.
        key: The columns that identify a row.
    """

    schema: str
    name: str
    key: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """For `psycopg.sql`."""
        return sql.Identifier(self.schema, self.name)

    @property
    def beside_parameters(self) -> sql.Identifier:
        """The same for a query with parameters, where a % would be taken for a placeholder."""
        return sql.Identifier(self.schema, self.name.replace("%", "%%"))


ODD = Table("Odd Schema", "Ünï.cöde %s > *", ("key of",))
TABLES = (
    Table("public", "customers", ("id",)),
    Table("public", "orders", ("region", "number")),
    Table("public", "documents", ("id",)),
    Table("public", "articles", ("id",)),
    Table("public", "by_index", ("code", "place")),
    Table("public", "counters", ("id",)),
    Table("public", "scratch", ("id",)),
    Table("public", "scraps", ("id",)),
    ODD,
)
PATTERNS = ("public.*", '"Odd Schema".*')


def setup() -> bytes:
    """The DDL, to be run in an empty database."""
    return _SETUP.encode()


def write_last(dsn: str, patience: float = 30.0) -> None:
    """Commit one more row than all the others, so that the log has a known end."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with psycopg.connect(dsn, connect_timeout=5) as connection:
                connection.execute(
                    "INSERT INTO counters VALUES (-1, 1) ON CONFLICT (id) DO UPDATE SET hits = 2"
                )
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
