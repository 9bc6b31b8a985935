"""Somebody who uses the shop: mixed transactions at a steady rate, from a thread of its own."""

from __future__ import annotations

import random
import threading
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from control.demo.progress import Progress

_Connection = psycopg.Connection[tuple[object, ...]]
WORDS = (
    "amber",
    "birch",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "glade",
    "heath",
    "iris",
    "雪",
    "ñandú",
)
_EMAIL = "{}-{}@example.org"


class Workload:
    """Writes into the shop until it is stopped.

    Args:
        dsn: The shop's database.
        rate: Changes a second to aim at; a slow server gets fewer.
        progress: Told of every transaction right before its COMMIT, and right after it.
        seed: Makes the same run again, but for its timing.
    """

    def __init__(self, dsn: str, rate: int, progress: Progress, seed: int) -> None:
        self._dsn = dsn
        self._rate = rate
        self._progress = progress
        self._random = random.Random(seed)  # noqa: S311 - made-up customers, not secrets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)
        self._error: Exception | None = None
        self._customers = 0
        self._products: list[str] = []
        self._orders: list[tuple[uuid.UUID, int]] = []

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Let the transaction that is under way end. Raises what stopped the thread before."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise what made the thread end by itself, if anything did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with psycopg.connect(self._dsn) as connection:
                self._write(connection)
        except Exception as error:  # noqa: BLE001 - raised by `check`, in the main thread
            self._error = error

    def _write(self, connection: _Connection) -> None:
        steps: list[Callable[[_Connection], int]] = [
            self._register,
            self._list_products,
            self._order,
            self._order,
            self._order,
            self._advance_orders,
            self._reprice,
            self._rename_product,
            self._delete_orders,
            self._spend,
        ]
        changes = self._register(connection) + self._list_products(connection)
        changes += connection.execute("INSERT INTO pulse VALUES (1, 0, now())").rowcount
        self._commit(connection, changes)
        began, written = time.monotonic(), 0
        while not self._stop.is_set():
            changes = sum(
                step(connection)
                for step in self._random.choices(steps, k=self._random.choice((1, 1, 2, 6)))
            )
            written += changes
            self._commit(connection, changes)
            if self._random.random() < 0.03:  # what is rolled back must not arrive
                connection.execute("DELETE FROM customers")
                connection.rollback()
            self._stop.wait(max(0.0, began + written / self._rate - time.monotonic()))

    def _commit(self, connection: _Connection, changes: int) -> None:
        upto = self._progress.begin(changes + 1)
        connection.execute("UPDATE pulse SET changes = %s, at = clock_timestamp()", [upto])
        self._progress.committing(upto)
        connection.commit()
        self._progress.committed(upto)

    def _register(self, connection: _Connection) -> int:
        first = self._customers
        self._customers += self._random.randint(5, 40)
        rows = [
            (
                number,
                _EMAIL.format(self._word(), number),
                self._random.choice(("none", "silver", "gold")),
                self._money(100_000),
                [self._word() for _ in range(self._random.randint(0, 4))],
                self._random.choice((None, Jsonb({"likes": self._word(), "visits": number}))),
                self._random.choice((None, date(1950, 1, 1) + timedelta(days=number % 20_000))),
                datetime.now(UTC),
            )
            for number in range(first, self._customers)
        ]
        return self._insert(
            connection, "INSERT INTO customers VALUES (%s,%s,%s,%s,%s,%s,%s,%s)", rows
        )

    def _list_products(self, connection: _Connection) -> int:
        rows = []
        for _ in range(self._random.randint(1, 6)):
            sku = f"{self._word()}-{len(self._products)}-{self._random.randrange(10**9)}"
            self._products.append(sku)
            rows.append(
                (
                    sku,
                    f'"{self._word()}" & {self._word()}',
                    self._money(10_000),
                    self._random.choice((None, self._random.uniform(0, 9), float("nan"))),
                    [self._random.randrange(500) for _ in range(3)],
                    Jsonb({"colour": self._word(), "sizes": [1, 2.5, None]}),
                    self._random.randbytes(self._random.choice((0, 64, 900))),
                    self._prose(self._random.choice((20, 3_000, 12_000))),
                )
            )
        return self._insert(
            connection, "INSERT INTO products VALUES (%s,%s,%s,%s,%s,%s,%s,%s)", rows
        )

    def _order(self, connection: _Connection) -> int:
        orders, items = [], []
        for _ in range(self._random.randint(1, 12)):
            order, lines = uuid.UUID(int=self._random.getrandbits(128)), self._random.randint(1, 6)
            self._orders.append((order, lines))
            prices = [self._money(1_000) for _ in range(lines)]
            note = self._random.choice((None, "", "tab\there\nand a new line", self._prose(80)))
            customer = self._random.randrange(self._customers)
            orders.append((order, customer, "new", sum(prices), lines > 4, note, datetime.now(UTC)))
            items += [
                (order, line, self._product(), self._random.randint(1, 9), price, Jsonb([line]))
                for line, price in enumerate(prices)
            ]
        return self._insert(
            connection, "INSERT INTO orders VALUES (%s,%s,%s,%s,%s,%s,%s)", orders
        ) + self._insert(connection, "INSERT INTO order_items VALUES (%s,%s,%s,%s,%s,%s)", items)

    def _advance_orders(self, connection: _Connection) -> int:
        some = [order for order, _ in self._sample_orders(20)]
        return connection.execute(
            "UPDATE orders SET state = %s, total = total * 1.01 WHERE id = ANY(%s)",
            [self._random.choice(("paid", "shipped", "returned")), some],
        ).rowcount

    def _reprice(self, connection: _Connection) -> int:
        """Leaves the big description alone, so the log does not carry it."""
        return connection.execute(
            "UPDATE products SET price = price + 1, stock = stock || 7 WHERE sku = ANY(%s)",
            [[self._product() for _ in range(10)]],
        ).rowcount

    def _rename_product(self, connection: _Connection) -> int:
        """Changes a key: the target's old row has to go."""
        place = self._random.randrange(len(self._products))
        old, new = self._products[place], f"{self._word()}-{place}-{self._random.randrange(10**9)}"
        self._products[place] = new
        return (
            connection.execute("UPDATE products SET sku = %s WHERE sku = %s", [new, old]).rowcount
            + connection.execute(
                "UPDATE order_items SET sku = %s WHERE sku = %s", [new, old]
            ).rowcount
        )

    def _delete_orders(self, connection: _Connection) -> int:
        if len(self._orders) < 200:
            return 0
        gone = self._sample_orders(12)
        left = set(gone)
        self._orders = [order for order in self._orders if order not in left]
        ids = [order for order, _ in gone]
        return (
            connection.execute("DELETE FROM order_items WHERE order_id = ANY(%s)", [ids]).rowcount
            + connection.execute("DELETE FROM orders WHERE id = ANY(%s)", [ids]).rowcount
        )

    def _spend(self, connection: _Connection) -> int:
        """Hits the same rows again and again."""
        return sum(
            connection.execute(
                "UPDATE customers SET balance = balance - 1, tags = tags[1:2] WHERE id = %s",
                [number % 5],
            ).rowcount
            for number in range(10)
        )

    def _insert(
        self, connection: _Connection, query: str, rows: Sequence[tuple[object, ...]]
    ) -> int:
        with connection.cursor() as cursor:
            cursor.executemany(query.encode(), rows)
            return cursor.rowcount

    def _sample_orders(self, count: int) -> list[tuple[uuid.UUID, int]]:
        return self._random.sample(self._orders, min(count, len(self._orders)))

    def _product(self) -> str:
        return self._random.choice(self._products)

    def _word(self) -> str:
        return self._random.choice(WORDS)

    def _money(self, limit: int) -> Decimal:
        return Decimal(self._random.randrange(limit)) / 100

    def _prose(self, length: int) -> str:
        words = self._random.choices(WORDS, k=length // 5 + 1)
        return " ".join(words)[:length]
