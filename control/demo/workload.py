"""Somebody who uses the shop on PostgreSQL."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
from psycopg.types.json import Jsonb

from control.demo.shopping import Shopping

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from control.demo.progress import Progress


class _Session:
    """Implements `shopping.Session`."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        return self._connection.execute(statement.encode(), values).rowcount

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        with self._connection.cursor() as cursor:
            cursor.executemany(statement.encode(), rows)
            return cursor.rowcount

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()


class Workload(Shopping):
    """See `Shopping`.

    Args:
        dsn: The shop's database.
        rate: As in `Shopping`.
        progress: As in `Shopping`.
        seed: As in `Shopping`.
    """

    clock = "clock_timestamp()"
    among = "= ANY(%s)"
    advanced = "total = total * 1.01"
    repriced = "price = price + 1, stock = stock || 7"
    spent = "balance = balance - 1, tags = tags[1:2]"

    def __init__(self, dsn: str, rate: int, progress: Progress, seed: int) -> None:
        super().__init__(rate, progress, seed)
        self._dsn = dsn

    @contextmanager
    def _open(self) -> Iterator[_Session]:
        with psycopg.connect(self._dsn) as connection:
            yield _Session(connection)

    def _order_id(self, number: int) -> uuid.UUID:
        return uuid.UUID(int=number)

    def _now(self) -> datetime:
        return datetime.now(UTC)

    def _customer(self, number: int) -> tuple[object, ...]:
        return (
            number,
            self._email(number),
            self._loyalty(),
            self._money(100_000),
            [self._word() for _ in range(self._random.randint(0, 4))],
            self._random.choice((None, Jsonb({"likes": self._word(), "visits": number}))),
            self._birthday(number),
            self._now(),
        )

    def _product(self, sku: str) -> tuple[object, ...]:
        return (
            sku,
            self._title(),
            self._money(10_000),
            self._random.choice((None, self._random.uniform(0, 9), float("nan"))),
            [self._random.randrange(500) for _ in range(3)],
            Jsonb({"colour": self._word(), "sizes": [1, 2.5, None]}),
            self._picture(),
            self._prose(self._random.choice((20, 3_000, 12_000))),
        )

    def _item(self, order: object, line: int, price: Decimal) -> tuple[object, ...]:
        quantity = self._random.randint(1, 9)
        return (order, line, self._some_product(), quantity, price, Jsonb([line]))
