"""A PostgreSQL sink that is fed from MySQL or MariaDB has columns that fit."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from connectors.postgres.target.foreign_types import postgres_type
from tests.integration.binlog_capture import Log
from tests.integration.postgres_rows import deliver, delivered, query, sink
from tests.integration.test_mysql_types import cases, schema_type

if TYPE_CHECKING:
    from tests.servers.binlog import Kind
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def test_every_value_arrives_in_a_column_that_fits(binlog_kind: Kind, database: Database) -> None:
    log = Log(binlog_kind.type, binlog_kind.server)
    wanted = cases(binlog_kind)
    groups = [wanted[start : start + 25] for start in range(0, len(wanted), 25)]
    for number, group in enumerate(groups):
        columns = ", ".join(f"c{index} {type_}" for index, (type_, _, _) in enumerate(group))
        log.run(
            "SET sql_mode = ''",
            f"CREATE TABLE t{number} (id bigint unsigned PRIMARY KEY, {columns})",
            f"INSERT INTO t{number} VALUES (1, {', '.join(value for _, value, _ in group)})",
        )
    changes = delivered(log.changes())
    deliver(sink(database.dsn), changes)
    with psycopg.connect(database.dsn, options="-c TimeZone=UTC") as connection:
        for number, group in enumerate(groups):
            for index, (type_, _, expected) in enumerate(group):
                target = postgres_type(schema_type(type_, binlog_kind)) or "text"
                found = connection.execute(
                    sql.SQL("SELECT c{0}, c{0} IS NOT DISTINCT FROM %s::{1} FROM {2}").format(
                        sql.SQL(str(index)),
                        sql.SQL(target),
                        sql.Identifier(log.name, f"t{number}"),
                    ),
                    [_value(expected, target)],
                ).fetchone()
                assert found is not None
                assert found[1], (type_, target, found[0], expected)


def _value(expected: object, target: str) -> object:
    if expected is None or (isinstance(expected, list) and target == "real[]"):
        return expected
    if target == "bytea":
        return base64.b64decode(str(expected))
    return json.dumps(expected) if target == "jsonb" else str(expected)


def test_columns_have_fitting_types(binlog_kind: Kind, database: Database) -> None:
    log = Log(binlog_kind.type, binlog_kind.server)
    log.run(
        "CREATE TABLE orders (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, total decimal(12,2),"
        " placed datetime(3), seen timestamp NULL, note varchar(40), state enum('new','paid'))",
        "INSERT INTO orders VALUES (1, 1.5, '2026-11-24 20:52:49.5', '2026-11-24 20:52:49', 'é',"
        " 'paid')",
        "UPDATE orders SET id = 2, note = NULL",
        "ALTER TABLE orders ADD COLUMN flags bit(3) DEFAULT b'101'",
        "INSERT INTO orders (id) VALUES (3)",
        "DELETE FROM orders WHERE id = 3",
    )
    changes = delivered(log.changes())
    deliver(sink(database.dsn), *([change] for change in changes))
    types = query(
        database,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0 AND"
        f" attrelid = '{log.name}.orders'::regclass ORDER BY attnum",
    )
    assert types == [
        ("id", "numeric(20,0)"),
        ("total", "numeric(12,2)"),
        ("placed", "timestamp(3) without time zone"),
        ("seen", "timestamp(0) with time zone"),
        ("note", "character varying(40)"),
        ("state", "text"),
        ("flags", "bit(3)"),
    ]
    rows = query(database, f"SELECT id::int, total::text, note, state FROM {log.name}.orders")
    assert rows == [(2, "1.50", None, "paid")]
