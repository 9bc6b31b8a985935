"""Somebody who uses the shop on MariaDB."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from control.demo.mariadb_shop import connect
from control.demo.shopping import Shopping

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from pymysql.cursors import Cursor

    from control.demo.progress import Progress
    from control.servers.binlog_server import BinlogServer


class _Session:
    """Implements `shopping.Session`."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        return self._cursor.execute(statement, tuple(values))

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        return self._cursor.executemany(statement, rows) or 0

    def commit(self) -> None:
        self._cursor.execute("COMMIT")

    def rollback(self) -> None:
        self._cursor.execute("ROLLBACK")


class MariadbWorkload(Shopping):
    """See `Shopping`.

    Args:
        server: The shop's server.
        rate: As in `Shopping`.
        progress: As in `Shopping`.
        seed: As in `Shopping`.
    """

    clock = "UTC_TIMESTAMP(6)"
    among = "IN %s"
    advanced = "total = total + 1"
    repriced = "price = price + 1"
    spent = "balance = balance - 1"

    def __init__(self, server: BinlogServer, rate: int, progress: Progress, seed: int) -> None:
        super().__init__(rate, progress, seed)
        self._server = server

    @contextmanager
    def _open(self) -> Iterator[_Session]:
        with connect(self._server) as connection, connection.cursor() as cursor:
            yield _Session(cursor)

    def _order_id(self, number: int) -> str:
        return str(uuid.UUID(int=number, version=4))

    def _now(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None)

    def _customer(self, number: int) -> tuple[object, ...]:
        return (
            number,
            self._email(number),
            self._loyalty(),
            self._money(100_000),
            self._random.choice(("", "amber", "birch,dune")),
            self._random.choice((None, json.dumps({"likes": self._word()}))),
            self._birthday(number),
            self._now(),
        )

    def _product(self, sku: str) -> tuple[object, ...]:
        return (
            sku,
            self._title(),
            self._money(10_000),
            self._random.choice((None, self._random.uniform(0, 9))),
            self._random.randrange(4_000_000_000),
            self._picture(),
            self._prose(self._random.choice((20, 3_000, 12_000))),
        )

    def _item(self, order: object, line: int, price: Decimal) -> tuple[object, ...]:
        return (order, line, self._some_product(), self._random.randint(1, 9), price)
