"""What goes on in the demo's shop, whatever server it is on: mixed transactions, steadily."""
# ruff: noqa: S608 - the statements are made of our own constants

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from control.demo.progress import Progress

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


class Session(Protocol):
    """A session on the shop's server, with a transaction open as soon as something is written."""

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement with `%s` for each value; returns how many rows it changed."""
        ...

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Run a statement once for each row of values; returns how many rows they changed."""
        ...

    def commit(self) -> None:
        """End the transaction."""
        ...

    def rollback(self) -> None:
        """Undo the transaction."""
        ...


class Shopping(ABC):
    """Writes into the shop until it is stopped, from a thread of its own.

    What is done is told here; a subclass knows the server: how to get at it, its SQL, and the rows
    of tables that show what types it has.

    Args:
        rate: Changes a second to aim at; a slow server gets fewer.
        progress: Told of every transaction right before its COMMIT, and right after it.
        seed: Makes the same run again, but for its timing.

    Attributes:
        clock: The time of day in SQL, as the column `at` of `pulse` has it.
        among: A condition in SQL, that what stands before it is one of a list of values.
        advanced, repriced, spent: What an update sets when an order goes on, when a product gets
            another price, and when a customer spends.
    """

    clock: ClassVar[str]
    among: ClassVar[str]
    advanced: ClassVar[str]
    repriced: ClassVar[str]
    spent: ClassVar[str]

    def __init__(self, rate: int, progress: Progress, seed: int) -> None:
        self._rate = rate
        self._progress = progress
        self._random = random.Random(seed)  # noqa: S311 - made-up customers, not secrets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)
        self._error: Exception | None = None
        self._customers = 0
        self._products: list[str] = []
        self._orders: list[object] = []

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

    @abstractmethod
    def _open(self) -> AbstractContextManager[Session]:
        """A session, closed on leaving."""

    @abstractmethod
    def _order_id(self, number: int) -> object:
        """The key of an order, of a number of 128 bits."""

    @abstractmethod
    def _now(self) -> datetime:
        """The time of day, as columns of timestamps take it."""

    @abstractmethod
    def _customer(self, number: int) -> tuple[object, ...]:
        """A row of `customers`."""

    @abstractmethod
    def _product(self, sku: str) -> tuple[object, ...]:
        """A row of `products`."""

    @abstractmethod
    def _item(self, order: object, line: int, price: Decimal) -> tuple[object, ...]:
        """A row of `order_items`."""

    def _run(self) -> None:
        try:
            with self._open() as session:
                self._write(session)
        except Exception as error:  # noqa: BLE001 - raised by `check`, in the main thread
            self._error = error

    def _write(self, session: Session) -> None:
        steps: list[Callable[[Session], int]] = [
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
        changes = self._register(session) + self._list_products(session)
        changes += session.execute(f"INSERT INTO pulse VALUES (1, 0, {self.clock})")
        self._commit(session, changes)
        began, written = time.monotonic(), 0
        while not self._stop.is_set():
            count = self._random.choice((1, 1, 2, 6))
            changes = sum(step(session) for step in self._random.choices(steps, k=count))
            written += changes
            self._commit(session, changes)
            if self._random.random() < 0.03:  # what is rolled back must not arrive
                session.execute("DELETE FROM customers")
                session.rollback()
            self._stop.wait(max(0.0, began + written / self._rate - time.monotonic()))

    def _commit(self, session: Session, changes: int) -> None:
        upto = self._progress.begin(changes + 1)
        session.execute(f"UPDATE pulse SET changes = %s, at = {self.clock}", (upto,))
        self._progress.committing(upto)
        session.commit()
        self._progress.committed(upto)

    def _register(self, session: Session) -> int:
        first = self._customers
        self._customers += self._random.randint(5, 40)
        rows = [self._customer(number) for number in range(first, self._customers)]
        return _insert(session, "customers", rows)

    def _list_products(self, session: Session) -> int:
        rows = []
        for _ in range(self._random.randint(1, 6)):
            self._products.append(self._sku(len(self._products)))
            rows.append(self._product(self._products[-1]))
        return _insert(session, "products", rows)

    def _order(self, session: Session) -> int:
        orders: list[tuple[object, ...]] = []
        items: list[tuple[object, ...]] = []
        for _ in range(self._random.randint(1, 12)):
            order = self._order_id(self._random.getrandbits(128))
            self._orders.append(order)
            prices = [self._money(1_000) for _ in range(self._random.randint(1, 6))]
            note = self._random.choice((None, "", "tab\there\nand a new line", self._prose(80)))
            customer, gift = self._random.randrange(self._customers), len(prices) > 4
            orders.append((order, customer, "new", sum(prices), gift, note, self._now()))
            items += [self._item(order, line, price) for line, price in enumerate(prices)]
        return _insert(session, "orders", orders) + _insert(session, "order_items", items)

    def _advance_orders(self, session: Session) -> int:
        state = self._random.choice(("paid", "shipped", "returned"))
        return self._update(
            session, f"UPDATE orders SET state = %s, {self.advanced}", self._some_orders(20), state
        )

    def _reprice(self, session: Session) -> int:
        """Leaves the big description alone."""
        some = [self._some_product() for _ in range(10)]
        return self._update(session, f"UPDATE products SET {self.repriced}", some, column="sku")

    def _rename_product(self, session: Session) -> int:
        """Changes a key: the target's old row has to go."""
        place = self._random.randrange(len(self._products))
        old, new = self._products[place], self._sku(place)
        self._products[place] = new
        return session.execute(
            "UPDATE products SET sku = %s WHERE sku = %s", (new, old)
        ) + session.execute("UPDATE order_items SET sku = %s WHERE sku = %s", (new, old))

    def _delete_orders(self, session: Session) -> int:
        if len(self._orders) < 200:
            return 0
        gone = self._some_orders(12)
        left = set(gone)
        self._orders = [order for order in self._orders if order not in left]
        items = self._update(session, "DELETE FROM order_items", gone, column="order_id")
        return items + self._update(session, "DELETE FROM orders", gone)

    def _spend(self, session: Session) -> int:
        """Hits the same rows again and again."""
        statement = f"UPDATE customers SET {self.spent} WHERE id = %s"
        return sum(session.execute(statement, (number % 5,)) for number in range(10))

    def _update(
        self,
        session: Session,
        statement: str,
        keys: list[object] | list[str],
        *values: object,
        column: str = "id",
    ) -> int:
        """Change the rows whose `column` is one of `keys`."""
        if not keys:
            return 0
        return session.execute(f"{statement} WHERE {column} {self.among}", (*values, keys))

    def _some_orders(self, count: int) -> list[object]:
        return self._random.sample(self._orders, min(count, len(self._orders)))

    def _some_product(self) -> str:
        return self._random.choice(self._products)

    def _sku(self, number: int) -> str:
        return f"{self._word()}-{number}-{self._random.randrange(10**9)}"

    def _word(self) -> str:
        return self._random.choice(WORDS)

    def _email(self, number: int) -> str:
        return f"{self._word()}-{number}@example.org"

    def _loyalty(self) -> str:
        return self._random.choice(("none", "silver", "gold"))

    def _birthday(self, number: int) -> date | None:
        return self._random.choice((None, date(1950, 1, 1) + timedelta(days=number % 20_000)))

    def _title(self) -> str:
        return f'"{self._word()}" & {self._word()}'

    def _money(self, limit: int) -> Decimal:
        return Decimal(self._random.randrange(limit)) / 100

    def _picture(self) -> bytes:
        return self._random.randbytes(self._random.choice((0, 64, 900)))

    def _prose(self, length: int) -> str:
        words = self._random.choices(WORDS, k=length // 5 + 1)
        return " ".join(words)[:length]


def _insert(session: Session, table: str, rows: Sequence[Sequence[object]]) -> int:
    """Insert whole rows; returns how many."""
    marks = ", ".join(["%s"] * len(rows[0]))
    return session.execute_many(f"INSERT INTO {table} VALUES ({marks})", rows)
