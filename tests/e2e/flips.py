"""A table whose values flip to and fro, and what a stream that leaves repetitions out must hold."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

import nats
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

KEYS = 12
# What becomes of the values of a key, in order; None: its row was deleted.
Histories = dict[int, list["str | None"]]

SETUP = "CREATE TABLE items (id bigint PRIMARY KEY, value text, noise bigint)"


class Flips:
    """Writes such changes, one transaction after the other, until it is told to stop.

    Args:
        dsn: Of the database; its server may be killed meanwhile.
        seed: Of the changes.

    Attributes:
        histories: What was committed.
    """

    def __init__(self, dsn: str, seed: int) -> None:
        self._dsn, self._random = dsn, random.Random(seed)
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="flips")
        self.histories: Histories = defaultdict(list)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and leave a last row behind everything. Raises what went wrong."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        with psycopg.connect(self._dsn) as connection:
            connection.execute("INSERT INTO items VALUES (0, 'last', 0)")
        self.histories[0].append("last")

    def _write(self) -> None:
        number = 0
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._stop.is_set():
                    number += 1
                    self._change(connection, number)
                    time.sleep(0.002)
        except Exception as error:  # noqa: BLE001 - raised by `stop`
            self._failure = error

    def _change(self, connection: psycopg.Connection, number: int) -> None:
        key = self._random.randint(1, KEYS)
        value: str | None = self._random.choice("ab")
        history = self.histories[key]
        if not history or history[-1] is None:
            connection.execute("INSERT INTO items VALUES (%s, %s, %s)", [key, value, number])
        elif self._random.random() < 0.02:
            connection.execute("DELETE FROM items WHERE id = %s", [key])
            value = None
        else:
            connection.execute(
                "UPDATE items SET value = %s, noise = %s WHERE id = %s", [value, number, key]
            )
        history.append(value)


def stored(url: str, topic: str, patience: float = 90.0) -> Histories:
    """The histories that a topic tells, read without the project's own code.

    Returns once the last row is there.
    """
    return asyncio.run(_stored(url, f"CDC.shop.{topic}.0", patience))


async def _stored(url: str, subject: str, patience: float) -> Histories:
    histories: Histories = defaultdict(list)
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        subscription = await js.subscribe(
            subject,
            stream="CDC_shop",
            ordered_consumer=True,
            config=ConsumerConfig(ack_policy=AckPolicy.NONE),
        )
        deadline = time.monotonic() + patience
        while not histories[0]:
            message = await subscription.next_msg(timeout=max(0.1, deadline - time.monotonic()))
            envelope = json.loads(message.data)
            row = envelope["after"] or envelope["before"]
            histories[row["id"]].append(envelope["after"] and row["value"])
    finally:
        await client.close()
    return histories


def changes(history: Iterable[str | None]) -> list[str | None]:
    """A history without its repetitions."""
    return [value for value, _ in groupby(history)]


def repetitions(history: list[str | None]) -> int:
    """How many of a history's values repeat the one before."""
    return len(history) - len(changes(history))
