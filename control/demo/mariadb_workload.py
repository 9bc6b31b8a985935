"""Somebody who uses the shop on MariaDB, from a thread of its own."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from control.demo.mariadb_shop import connect
from control.demo.workload import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymysql.cursors import Cursor

    from control.demo.progress import Progress
    from control.servers.mariadb import MariadbServer


class MariadbWorkload:
    """Writes into the shop until it is stopped; as `workload.Workload`.

    Args:
        server: The shop's server.
        rate: Changes a second to aim at; a slow server gets fewer.
        progress: Told of every transaction right before its COMMIT, and right after it.
        seed: Makes the same run again, but for its timing.
    """

    def __init__(self, server: MariadbServer, rate: int, progress: Progress, seed: int) -> None:
        self._server = server
        self._rate = rate
        self._progress = progress
        self._random = random.Random(seed)  # noqa: S311 - made-up customers, not secrets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)
        self._error: Exception | None = None
        self._customers = 0
        self._products: list[str] = []
        self._orders: list[str] = []

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
            with connect(self._server) as connection, connection.cursor() as cursor:
                self._write(cursor)
        except Exception as error:  # noqa: BLE001 - raised by `check`, in the main thread
            self._error = error

    def _write(self, cursor: Cursor) -> None:
        steps: list[Callable[[Cursor], int]] = [
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
        changes = self._register(cursor) + self._list_products(cursor)
        changes += cursor.execute("INSERT INTO pulse VALUES (1, 0, UTC_TIMESTAMP(6))")
        self._commit(cursor, changes)
        began, written = time.monotonic(), 0
        while not self._stop.is_set():
            count = self._random.choice((1, 1, 2, 6))
            changes = sum(step(cursor) for step in self._random.choices(steps, k=count))
            written += changes
            self._commit(cursor, changes)
            if self._random.random() < 0.03:  # what is rolled back must not arrive
                cursor.execute("DELETE FROM customers")
                cursor.execute("ROLLBACK")
            self._stop.wait(max(0.0, began + written / self._rate - time.monotonic()))

    def _commit(self, cursor: Cursor, changes: int) -> None:
        upto = self._progress.begin(changes + 1)
        cursor.execute("UPDATE pulse SET changes = %s, at = UTC_TIMESTAMP(6)", (upto,))
        self._progress.committing(upto)
        cursor.execute("COMMIT")
        self._progress.committed(upto)

    def _register(self, cursor: Cursor) -> int:
        first = self._customers
        self._customers += self._random.randint(5, 40)
        return self._insert(
            cursor,
            "customers",
            [
                (
                    number,
                    f"{self._word()}-{number}@example.org",
                    self._random.choice(("none", "silver", "gold")),
                    self._money(100_000),
                    self._random.choice(("", "amber", "birch,dune")),
                    self._random.choice((None, json.dumps({"likes": self._word()}))),
                    self._random.choice((None, date(1950, 1, 1) + timedelta(days=number % 20_000))),
                    datetime.now(UTC).replace(tzinfo=None),
                )
                for number in range(first, self._customers)
            ],
        )

    def _list_products(self, cursor: Cursor) -> int:
        rows = []
        for _ in range(self._random.randint(1, 6)):
            sku = f"{self._word()}-{len(self._products)}-{self._random.randrange(10**9)}"
            self._products.append(sku)
            rows.append(
                (
                    sku,
                    f'"{self._word()}" & {self._word()}',
                    self._money(10_000),
                    self._random.choice((None, self._random.uniform(0, 9))),
                    self._random.randrange(4_000_000_000),
                    self._random.randbytes(self._random.choice((0, 64, 900))),
                    " ".join(self._random.choices(WORDS, k=self._random.choice((4, 600, 2400)))),
                )
            )
        return self._insert(cursor, "products", rows)

    def _order(self, cursor: Cursor) -> int:
        orders: list[tuple[object, ...]] = []
        items: list[tuple[object, ...]] = []
        for _ in range(self._random.randint(1, 12)):
            order = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            lines = self._random.randint(1, 6)
            self._orders.append(order)
            prices = [self._money(1_000) for _ in range(lines)]
            note = self._random.choice((None, "", "tab\there\nand a new line"))
            customer = self._random.randrange(self._customers)
            now = datetime.now(UTC).replace(tzinfo=None)
            orders.append((order, customer, "new", sum(prices), lines > 4, note, now))
            items += [
                (order, line, self._product(), self._random.randint(1, 9), price)
                for line, price in enumerate(prices)
            ]
        return self._insert(cursor, "orders", orders) + self._insert(cursor, "order_items", items)

    def _advance_orders(self, cursor: Cursor) -> int:
        some = self._sample_orders(20)
        if not some:
            return 0
        state = self._random.choice(("paid", "shipped", "returned"))
        query = "UPDATE orders SET state = %s, total = total + 1 WHERE id IN %s"
        return cursor.execute(query, (state, some))

    def _reprice(self, cursor: Cursor) -> int:
        some = [self._product() for _ in range(10)]
        return cursor.execute("UPDATE products SET price = price + 1 WHERE sku IN %s", (some,))

    def _rename_product(self, cursor: Cursor) -> int:
        """Changes a key: the target's old row has to go."""
        place = self._random.randrange(len(self._products))
        old, new = self._products[place], f"{self._word()}-{place}-{self._random.randrange(10**9)}"
        self._products[place] = new
        changed = cursor.execute("UPDATE products SET sku = %s WHERE sku = %s", (new, old))
        return changed + cursor.execute(
            "UPDATE order_items SET sku = %s WHERE sku = %s", (new, old)
        )

    def _delete_orders(self, cursor: Cursor) -> int:
        if len(self._orders) < 200:
            return 0
        gone = self._sample_orders(12)
        self._orders = [order for order in self._orders if order not in gone]
        deleted = cursor.execute("DELETE FROM order_items WHERE order_id IN %s", (gone,))
        return deleted + cursor.execute("DELETE FROM orders WHERE id IN %s", (gone,))

    def _spend(self, cursor: Cursor) -> int:
        """Hits the same rows again and again."""
        query = "UPDATE customers SET balance = balance - 1 WHERE id = %s"
        return sum(cursor.execute(query, (number % 5,)) for number in range(10))

    def _insert(self, cursor: Cursor, table: str, rows: Sequence[Sequence[object]]) -> int:
        marks = ", ".join(["%s"] * len(rows[0]))
        query = f"INSERT INTO {table} VALUES ({marks})"  # noqa: S608 - our own tables
        return cursor.executemany(query, rows) or 0

    def _sample_orders(self, count: int) -> list[str]:
        return self._random.sample(self._orders, min(count, len(self._orders)))

    def _product(self) -> str:
        return self._random.choice(self._products)

    def _word(self) -> str:
        return self._random.choice(WORDS)

    def _money(self, limit: int) -> Decimal:
        return Decimal(self._random.randrange(limit)) / 100
