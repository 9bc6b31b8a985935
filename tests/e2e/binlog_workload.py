"""A seeded writer of mixed transactions for MySQL and MariaDB. It records nothing: the log does."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import TYPE_CHECKING

import pymysql

from control.demo.shop import Table
from tests.e2e.writers import Writers
from tests.servers.binlog import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymysql.cursors import Cursor

    from control.servers.binlog_server import BinlogServer

TABLES = (
    Table("items", ("id",)),
    Table("orders", ("region", "number")),
    Table("counters", ("id",)),
    Table("scratch", ("id",)),
)
SETUP = (
    "CREATE TABLE items (id bigint unsigned PRIMARY KEY, name varchar(50), body longtext,"
    " price decimal(12,2), seen datetime(6), avatar blob, state enum('new', 'it''s ok', 'é'))",
    "CREATE TABLE orders (region int, number varchar(20), total decimal(20,4), took time(3),"
    " note text CHARACTER SET latin1, PRIMARY KEY (region, number))",
    "CREATE TABLE counters (id int PRIMARY KEY, hits bigint NOT NULL)",
    "CREATE TABLE scratch (id bigint AUTO_INCREMENT PRIMARY KEY, value text)",
)
# A deadlock, a lock that was waited for too long, a key that another writer has taken.
_PASSING = (1213, 1205, 1062)


class Workload(Writers):
    """Writers in threads of their own, until they are stopped; they outlive the server's kills.

    Args:
        server: Where the database `shop` is.
        seed: Of the transactions.
    """

    def __init__(self, server: BinlogServer, seed: int) -> None:
        self.transactions = 0
        self._server = server
        self._stop = threading.Event()
        chances = [random.Random(f"{seed}/{number}") for number in range(3)]
        super().__init__([partial(self._transact, chance) for chance in chances], self._stop)

    def _transact(self, random_: random.Random) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._server, "shop") as connection:
                    connection.autocommit(False)
                    with connection.cursor() as cursor:
                        self._write(cursor, random_)
            except pymysql.Error as error:
                number = error.args[0] if error.args else 0
                lost = isinstance(error, pymysql.OperationalError | pymysql.InterfaceError)
                if number not in _PASSING and not lost:
                    raise
                self._stop.wait(0.1)

    def _write(self, cursor: Cursor, random_: random.Random) -> None:
        kinds: list[tuple[float, Callable[[Cursor, random.Random], None]]] = [
            (40, _mixed),
            (8, _move_keys),
            (8, _savepoints),
            (6, _hot_rows),
            (3, _large_row),
            (3, _many_rows),
            (1, _truncate),
        ]
        while not self._stop.is_set():
            (_, kind) = random_.choices(kinds, [weight for weight, _ in kinds])[0]
            kind(cursor, random_)
            cursor.execute("ROLLBACK" if random_.random() < 0.05 else "COMMIT")
            self.transactions += 1
            self._stop.wait(random_.expovariate(10))


def _mixed(cursor: Cursor, random_: random.Random) -> None:
    for _ in range(random_.randint(1, 12)):
        number = random_.randrange(400)
        if random_.random() < 0.2:
            cursor.execute("DELETE FROM items WHERE id = %s", (number,))
            continue
        cursor.execute(
            "INSERT INTO items VALUES (%s, %s, %s, %s, NOW(6), %s, %s) ON DUPLICATE KEY UPDATE"
            " name = VALUES(name), price = price + 1, seen = NOW(6), state = VALUES(state)",
            (
                number,
                random_.choice(["x", 'é " \\ \n', "漢😀", None]),
                "y" * random_.randrange(300),
                f"{random_.randrange(10**9) / 100:.2f}",
                random_.randbytes(random_.randrange(40)),
                random_.choice(["new", "it's ok", "é"]),
            ),
        )
        cursor.execute(
            "INSERT INTO orders VALUES (%s, %s, %s, %s, %s)"
            " ON DUPLICATE KEY UPDATE total = total + 1",
            (random_.randrange(9), f"n{random_.randrange(90)}", "1.5", "-01:02:03.5", "é€"),
        )


def _move_keys(cursor: Cursor, random_: random.Random) -> None:
    new, old = random_.randrange(10**6, 10**9), random_.randrange(400)
    cursor.execute("UPDATE items SET id = %s WHERE id = %s", (new, old))
    cursor.execute("UPDATE orders SET number = %s WHERE region = %s LIMIT 2", (f"m{new}", new % 9))


def _savepoints(cursor: Cursor, random_: random.Random) -> None:
    cursor.execute("INSERT INTO scratch (value) VALUES ('kept')")
    cursor.execute("SAVEPOINT s")
    cursor.execute("INSERT INTO scratch (value) VALUES ('undone'), ('undone')")
    cursor.execute("ROLLBACK TO SAVEPOINT s")
    cursor.execute("INSERT INTO scratch (value) VALUES (%s)", (f"v{random_.randrange(9)}",))


def _hot_rows(cursor: Cursor, random_: random.Random) -> None:
    for number in sorted(random_.sample(range(5), 3)):
        cursor.execute(
            "INSERT INTO counters VALUES (%s, 1) ON DUPLICATE KEY UPDATE hits = hits + 1", (number,)
        )


def _large_row(cursor: Cursor, random_: random.Random) -> None:
    text = random_.randbytes(random_.randrange(600_000)).hex()
    cursor.execute(
        "INSERT INTO items (id, body) VALUES (%s, %s) ON DUPLICATE KEY UPDATE body = VALUES(body)",
        (random_.randrange(400), text),
    )


def _many_rows(cursor: Cursor, random_: random.Random) -> None:
    values = ", ".join(f"('bulk {number}')" for number in range(random_.randint(900, 3000)))
    cursor.execute(f"INSERT INTO scratch (value) VALUES {values}")


def _truncate(cursor: Cursor, _: random.Random) -> None:
    cursor.execute("TRUNCATE scratch")
