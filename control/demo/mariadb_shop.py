"""The demo's shop on MariaDB: its tables, and their comparison with those of the target."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
from psycopg import sql

from control.demo import shop
from control.demo.compare import Comparison, compare_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pymysql
    from pymysql.cursors import Cursor

    from control.demo.compare import Row
    from control.demo.shop import Table
    from control.servers.binlog_server import BinlogServer

SCHEMA = (
    """
    CREATE TABLE customers (
      id         bigint unsigned PRIMARY KEY,
      email      varchar(100) NOT NULL,
      level      enum('none', 'silver', 'gold') NOT NULL,
      balance    decimal(14,2) NOT NULL,
      tags       set('amber', 'birch', 'cedar', 'dune') NOT NULL,
      profile    json,
      birthday   date,
      created_at datetime(6) NOT NULL
    )
    """,
    """
    CREATE TABLE products (
      sku         varchar(60) PRIMARY KEY,
      title       varchar(100) CHARACTER SET utf16 NOT NULL,
      price       decimal(10,2) NOT NULL,
      weight      double,
      stock       int unsigned NOT NULL,
      thumbnail   blob,
      description text
    )
    """,
    """
    CREATE TABLE orders (
      id          uuid PRIMARY KEY,
      customer_id bigint unsigned NOT NULL,
      state       enum('new', 'paid', 'shipped', 'returned') NOT NULL,
      total       decimal(12,2) NOT NULL,
      gift        boolean NOT NULL,
      note        text,
      placed_at   datetime(3) NOT NULL
    )
    """,
    """
    CREATE TABLE order_items (
      order_id uuid,
      line     smallint,
      sku      varchar(60) NOT NULL,
      quantity int NOT NULL,
      price    decimal(10,2) NOT NULL,
      PRIMARY KEY (order_id, line)
    )
    """,
    "CREATE TABLE pulse (writer int PRIMARY KEY, changes bigint NOT NULL, at datetime(6) NOT NULL)",
)


def connect(server: BinlogServer, *, database: bool = True) -> pymysql.Connection[Cursor]:
    """A session on the shop's server, without autocommit."""
    import pymysql  # an extra's: the demo of PostgreSQL does without

    return pymysql.connect(
        unix_socket=str(server.socket),
        user="waxtap",
        database=shop.DATABASE if database else None,
        charset="utf8mb4",
    )


def create(server: BinlogServer) -> None:
    """Make the shop's database and tables."""
    with connect(server, database=False) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {shop.DATABASE} CHARACTER SET utf8mb4")
    with connect(server) as connection, connection.cursor() as cursor:
        for statement in SCHEMA:
            cursor.execute(statement)


def compare(server: BinlogServer, target_dsn: str, tables: Iterable[Table]) -> Comparison:
    """Compare the whole contents of `tables` in the shop and in the target, as Python's values."""
    compared, rows, differences = 0, 0, []
    with connect(server) as source, psycopg.connect(target_dsn) as target:
        for table in tables:
            with source.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {table.name}")  # noqa: S608 - our own tables
                columns = [str(field[0]) for field in cursor.description or ()]
                ours = _sorted(columns, cursor.fetchall(), table)
            query = sql.SQL("SELECT {} FROM public.{}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table.name)
            )
            theirs = _sorted(columns, target.execute(query).fetchall(), table)
            count, found = compare_rows(table, columns, ours, theirs)
            compared, rows = compared + 1, rows + count
            differences += found
    return Comparison(compared, rows, differences)


def _sorted(columns: list[str], rows: Iterable[Row], table: Table) -> list[Row]:
    """Rows as `compare_rows` takes them."""
    places = [columns.index(name) for name in table.key]
    plain = (tuple(str(v) if isinstance(v, UUID) else v for v in row) for row in rows)
    keyed = ((*(str(row[place]) for place in places), *row) for row in plain)
    return sorted(keyed, key=lambda row: row[: len(places)])
