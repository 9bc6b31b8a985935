"""The demo's shop: its tables, and what they hold before anything is captured: nothing."""

from __future__ import annotations

from dataclasses import dataclass

DATABASE = "shop"
TARGET_DATABASE = "warehouse"

SCHEMA = """
CREATE TYPE loyalty AS ENUM ('none', 'silver', 'gold');
CREATE TYPE order_state AS ENUM ('new', 'paid', 'shipped', 'returned');

CREATE TABLE customers (
  id         bigint PRIMARY KEY,
  email      text NOT NULL,
  level      loyalty NOT NULL,
  balance    numeric(14,2) NOT NULL,
  tags       text[] NOT NULL,
  profile    jsonb,
  birthday   date,
  created_at timestamptz NOT NULL
);
CREATE TABLE products (
  sku         text PRIMARY KEY,
  title       text NOT NULL,
  price       numeric(10,2) NOT NULL,
  weight      double precision,
  stock       integer[] NOT NULL,
  attributes  jsonb NOT NULL,
  thumbnail   bytea,
  description text
);
-- Stored out of line and uncompressed: an update that leaves it alone does not log it.
ALTER TABLE products ALTER COLUMN description SET STORAGE EXTERNAL;
CREATE TABLE orders (
  id          uuid PRIMARY KEY,
  customer_id bigint NOT NULL,
  state       order_state NOT NULL,
  total       numeric(12,2) NOT NULL,
  gift        boolean NOT NULL,
  note        text,
  placed_at   timestamptz NOT NULL
);
CREATE TABLE order_items (
  order_id uuid,
  line     smallint,
  sku      text NOT NULL,
  quantity integer NOT NULL,
  price    numeric(10,2) NOT NULL,
  options  jsonb,
  PRIMARY KEY (order_id, line)
);
-- Updated last in every transaction: what a target shows of it tells how far the target has come.
CREATE TABLE pulse (
  writer  integer PRIMARY KEY,
  changes bigint NOT NULL,
  at      timestamptz NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table to compare.

    Attributes:
        name: Its name, in the schema `public`.
        key: The columns of its primary key.
    """

    name: str
    key: tuple[str, ...]


TABLES = (
    Table("customers", ("id",)),
    Table("products", ("sku",)),
    Table("orders", ("id",)),
    Table("order_items", ("order_id", "line")),
    Table("pulse", ("writer",)),
)
