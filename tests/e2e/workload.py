"""A seeded writer of mixed transactions. It records nothing: the database is the truth."""

from __future__ import annotations

import random
import threading
import uuid
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.e2e import awkward, shop
from tests.e2e.writers import Writers

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = psycopg.Connection[tuple[object, ...]]

_RETRY = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.SerializationFailure,
)


class Workload(Writers):
    """Writers in threads of their own, until they are stopped.

    They connect again when PostgreSQL was killed; the transaction that was cut off is committed or
    not, as the database says.

    Args:
        dsn: Of the source database, where `shop.setup()` has been run.
        seed: Of the transactions.
        writers: How many write at the same time, so that transactions overlap in the log.
        pause: Mean seconds between a writer's transactions.
        large: Whether to write rows of up to 2 MB and transactions of thousands of rows.
    """

    def __init__(
        self, dsn: str, seed: int, *, writers: int = 3, pause: float = 0.1, large: bool = True
    ) -> None:
        stop = threading.Event()
        self._writers = [
            _Writer(dsn, random.Random(f"{seed}/{number}"), stop, pause, large=large)
            for number in range(writers)
        ]
        super().__init__([writer.run for writer in self._writers], stop)

    @property
    def transactions(self) -> int:
        """How many transactions were carried through, or given up by a rollback."""
        return sum(writer.transactions for writer in self._writers)


class _Writer:
    def __init__(
        self,
        dsn: str,
        random_: random.Random,
        stop: threading.Event,
        pause: float,
        *,
        large: bool,
    ) -> None:
        self._dsn, self._random, self._stop, self._pause = dsn, random_, stop, pause
        self._kinds: list[tuple[float, Callable[[Connection], None]]] = [
            (40, self._mixed),
            (8, self._toast_unchanged),
            (8, self._key_changes),
            (8, self._savepoints),
            (5, self._hot_rows),
            (4, self._empty_and_schema_less),
            (3, self._messages),
            (2, self._truncate),
            (1, self._bulk_update),
        ]
        if large:
            self._kinds += [(4, self._big_row), (3, self._bulk_insert)]
        self.transactions = 0

    def run(self) -> None:
        connection: Connection | None = None
        try:
            while not self._stop.is_set():
                try:
                    if connection is None or connection.closed:
                        connection = psycopg.connect(self._dsn, connect_timeout=5)
                    self._transaction(connection)
                    self.transactions += 1
                except _RETRY:
                    if connection is not None:
                        connection.rollback()
                except psycopg.OperationalError:
                    if connection is not None:
                        connection.close()
                    self._stop.wait(0.1)
                self._stop.wait(self._random.expovariate(1 / self._pause))
        finally:
            if connection is not None:
                connection.close()

    def _transaction(self, connection: Connection) -> None:
        weights = [weight for weight, _ in self._kinds]
        (_, kind) = self._random.choices(self._kinds, weights)[0]
        kind(connection)
        if self._random.random() < 0.05:
            connection.rollback()
        else:
            connection.commit()

    def _mixed(self, connection: Connection) -> None:
        steps = [
            self._upsert_customer,
            self._upsert_order,
            self._upsert_odd,
            self._upsert_by_index,
            self._upsert_article,
            self._update_some,
            self._delete_some,
            self._append_scratch,
        ]
        for _ in range(self._random.choice([1, 1, 2, 3, 8, 20])):
            self._random.choice(steps)(connection)

    def _upsert_customer(self, connection: Connection) -> None:
        values = awkward.customer(self._random, self._random.randint(1, 400))
        connection.execute(
            "INSERT INTO customers VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, tags = excluded.tags,"
            " profile = excluded.profile, balance = excluded.balance, score = excluded.score,"
            " seen = excluded.seen, born = excluded.born, avatar = excluded.avatar",
            values,
        )

    def _upsert_order(self, connection: Connection) -> None:
        connection.execute(
            "INSERT INTO orders VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s)"
            " ON CONFLICT (region, number) DO UPDATE SET state = excluded.state,"
            " total = excluded.total, placed = excluded.placed, took = excluded.took",
            [
                self._random.randint(1, 5),
                self._random.randint(1, 300),
                self._random.choice(["new", "paid", "sent", ""]),
                self._random.choice(["0", "19.99", None, "1234567.89"]),
                self._random.choice(["2024-01-01 00:00:00.5", "infinity", None]),
                self._random.choice(["1 year 2 mons -3 days 04:05:06.789", "-00:00:01", None]),
                self._random.choice([None, [], [[1, 2], [3, None]], [[[1]], [[2]]]]),
                self._random.choice(["empty", "[2024-01-01,)", "(,)", None]),
                self._random.choice(["10.0.0.1/8", "::1", None]),
            ],
        )

    def _upsert_odd(self, connection: Connection) -> None:
        query = sql.SQL(
            'INSERT INTO {} VALUES (%s,%s,%s,%s,%s) ON CONFLICT ("key of") DO UPDATE'
            ' SET "from" = excluded."from", "a""b" = excluded."a""b"'
        ).format(shop.ODD.beside_parameters)
        key = self._random.choice(awkward.TEXTS) + str(self._random.randint(1, 30))
        array = self._random.choice([None, [], [1, None, -3]])
        connection.execute(
            query, [key, awkward.text(self._random), array, self._random.choice([True, None]), "x"]
        )

    def _upsert_by_index(self, connection: Connection) -> None:
        connection.execute(
            "INSERT INTO by_index VALUES (%s,%s,%s)"
            " ON CONFLICT (code, place) DO UPDATE SET value = excluded.value",
            [
                self._random.randint(1, 20),
                self._random.choice(awkward.TEXTS),
                awkward.text(self._random),
            ],
        )

    def _upsert_article(self, connection: Connection) -> None:
        connection.execute(
            "INSERT INTO articles VALUES (%s,%s,%s,1) ON CONFLICT (id) DO UPDATE"
            " SET title = excluded.title, revision = articles.revision + 1",
            [
                self._random.randint(1, 60),
                awkward.text(self._random),
                awkward.bulk(self._random, 9000),
            ],
        )

    def _update_some(self, connection: Connection) -> None:
        low = self._random.randint(1, 400)
        connection.execute(
            "UPDATE customers SET name = %s, active = NOT active WHERE id BETWEEN %s AND %s",
            [awkward.text(self._random), low, low + self._random.randint(0, 10)],
        )

    def _delete_some(self, connection: Connection) -> None:
        low = self._random.randint(1, 400)
        queries = (
            "DELETE FROM customers WHERE id BETWEEN %s AND %s",
            "DELETE FROM orders WHERE number BETWEEN %s AND %s",
            "DELETE FROM articles WHERE id BETWEEN %s AND %s",
            "DELETE FROM by_index WHERE place BETWEEN %s AND %s",
        )
        connection.execute(self._random.choice(queries), [low, low + self._random.randint(0, 6)])

    def _append_scratch(self, connection: Connection) -> None:
        connection.execute("INSERT INTO scratch (value) VALUES (%s)", [awkward.text(self._random)])

    def _toast_unchanged(self, connection: Connection) -> None:
        connection.execute(
            "UPDATE documents SET revision = revision + 1, title = %s WHERE id IN"
            " (SELECT id FROM documents ORDER BY id LIMIT %s)",
            [awkward.text(self._random), self._random.randint(1, 3)],
        )
        connection.execute(
            "UPDATE articles SET revision = revision + 1 WHERE id = %s",
            [self._random.randint(1, 60)],
        )

    def _big_row(self, connection: Connection) -> None:
        # mostly some 100 KB, sometimes over the 1 MB that NATS takes in one message
        size = self._random.choice([100_000, 200_000, 200_000, 400_000, 1_200_000, 2_000_000])
        document = uuid.UUID(int=self._random.randint(1, 20))
        connection.execute(
            "INSERT INTO documents VALUES (%s,%s,%s,%s,1) ON CONFLICT (id) DO UPDATE"
            " SET body = excluded.body, revision = documents.revision + 1",
            [
                document,
                awkward.text(self._random),
                awkward.bulk(self._random, size),
                self._random.randbytes(20_000),
            ],
        )
        if self._random.random() < 0.2:
            connection.execute(
                "DELETE FROM documents WHERE id = %s",
                [uuid.UUID(int=self._random.randint(1, 20))],
            )

    def _bulk_insert(self, connection: Connection) -> None:
        rows = self._random.choice([50, 500, 999, 1000, 1001, 3000])
        connection.execute(
            "INSERT INTO scratch (value) SELECT 'bulk ' || i FROM generate_series(1, %s) i", [rows]
        )
        if self._random.random() < 0.5:
            self._mixed(connection)

    def _bulk_update(self, connection: Connection) -> None:
        connection.execute(
            "UPDATE scratch SET value = value || '.' WHERE id IN"
            " (SELECT id FROM scratch ORDER BY id DESC LIMIT %s)",
            [self._random.choice([10, 100, 1500])],
        )

    def _hot_rows(self, connection: Connection) -> None:
        for _ in range(self._random.randint(1, 30)):
            connection.execute(
                "INSERT INTO counters VALUES (%s, 1)"
                " ON CONFLICT (id) DO UPDATE SET hits = counters.hits + 1",
                [self._random.randint(1, 8)],
            )

    def _key_changes(self, connection: Connection) -> None:
        """Change keys, swap two rows' keys, and move a row through a key that was just freed."""
        a, b = self._random.sample(range(1, 400), 2)
        connection.execute("UPDATE customers SET id = 1000 + id WHERE id = %s", [a])
        connection.execute("UPDATE customers SET id = %s WHERE id = %s", [a, b])
        connection.execute("UPDATE customers SET id = %s WHERE id = 1000 + %s", [b, a])
        connection.execute(
            "UPDATE orders SET region = region %% 5 + 1, number = number + 1000 WHERE number = %s",
            [self._random.randint(1, 300)],
        )
        connection.execute("DELETE FROM orders WHERE number > 1200")
        connection.execute(
            "UPDATE by_index SET place = place + 100 WHERE place = %s", [self._random.randint(1, 9)]
        )
        connection.execute("DELETE FROM by_index WHERE place > 105")
        connection.execute(
            "UPDATE articles SET id = id + 100, title = 'moved' WHERE id = %s",
            [self._random.randint(1, 60)],
        )
        connection.execute("DELETE FROM articles WHERE id > 130")
        # the large body is unchanged, and the key under which the target has it is not the new one
        connection.execute(
            "UPDATE documents SET id = %s WHERE id = (SELECT id FROM documents LIMIT 1)",
            [uuid.UUID(int=self._random.randint(21, 10**9))],
        )
        connection.execute(
            "DELETE FROM documents WHERE id IN (SELECT id FROM documents ORDER BY id OFFSET 30)"
        )

    def _savepoints(self, connection: Connection) -> None:
        self._upsert_customer(connection)
        with connection.transaction(force_rollback=True):
            self._mixed(connection)
        with connection.transaction():
            self._upsert_order(connection)
            with connection.transaction(force_rollback=self._random.random() < 0.5):
                self._hot_rows(connection)
        self._append_scratch(connection)

    def _truncate(self, connection: Connection) -> None:
        self._append_scratch(connection)
        tables = self._random.choice(["scratch", "scraps", "scratch, scraps"])
        connection.execute(
            sql.SQL("TRUNCATE {}").format(
                sql.SQL(", ").join(sql.Identifier(name) for name in tables.split(", "))
            )
        )
        self._append_scratch(connection)
        connection.execute("INSERT INTO scraps (value) VALUES (%s)", [awkward.text(self._random)])

    def _empty_and_schema_less(self, connection: Connection) -> None:
        """A transaction whose only changes are in a table that nobody captures."""
        connection.execute("CREATE TEMPORARY TABLE IF NOT EXISTS mine (n int)")
        connection.execute("INSERT INTO mine VALUES (1)")

    def _messages(self, connection: Connection) -> None:
        connection.execute(
            "SELECT pg_logical_emit_message(%s, 'shop', %s)",
            [self._random.random() < 0.8, self._random.choice(["hello", "ünï ☃", ""])],
        )
        if self._random.random() < 0.5:
            self._upsert_order(connection)
