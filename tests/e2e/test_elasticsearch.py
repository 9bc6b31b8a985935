"""From a database to an Elasticsearch index, while everything on the way is killed."""

from __future__ import annotations

import random
import secrets
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

from tests.e2e.flows import both
from tests.e2e.items import insert, stop_cleanly, wait_for
from tests.e2e.letters import held, letters, replayed

if TYPE_CHECKING:
    from types import TracebackType

    from control.servers.elasticsearch import ElasticsearchServer
    from tests.e2e.deployment import Deployment
    from tests.servers.elasticsearch import ElasticsearchNode

# A node takes seconds to start.
pytestmark = [pytest.mark.servers, pytest.mark.slow]

Row = tuple[str | None, str | None]

# What the node counts.
_WRITES = ("index", "delete")
# Keys that the writer picks from; a key change moves a row far behind them, and back.
KEYS = 600
# So long a body is stored out of line: the log does not carry it when it stays as it is.
BODY = 3000


class Index:
    """The index that one sink writes.

    Args:
        node: Where it lies.
    """

    def __init__(self, node: ElasticsearchNode) -> None:
        self._node = node
        self.name = f"items-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        self._remove()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def sink(self, deployment: Deployment, **settings: object) -> None:
        """Put the sink `search` into the configuration."""
        sink = {
            "type": "elasticsearch",
            "url": self._node.url,
            "topics": ["db.*"],
            "index": self.name,
            "settings": {"number_of_replicas": 0, "refresh_interval": -1},
            **settings,
        }
        deployment.more = {"sinks": {"search": sink}}
        deployment.write_configuration()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Have something done with this index."""
        status, answer = self._node.request(method, f"/{self.name}{path}", body)
        assert status < 300, answer
        return answer

    def count(self) -> int:
        """How many documents there are."""
        self._look("POST", "/_refresh")
        return int(self._look("GET", "/_count").get("count", 0))

    def written(self) -> int:
        """How many documents the node has indexed and deleted since it was started."""
        done = self._look("GET", "/_stats/indexing").get("_all", {}).get("primaries", {})
        return sum(int(done.get("indexing", {}).get(f"{each}_total", 0)) for each in _WRITES)

    def rows(self) -> dict[int, Row]:
        """Every document, by the id that it is stored under."""
        self._look("POST", "/_refresh")
        found = self._look("POST", "/_search", {"size": 10000}).get("hits", {}).get("hits", [])
        assert len(found) < 10000
        assert all(hit["_id"] == str(hit["_source"]["id"]) for hit in found)
        return {
            int(hit["_id"]): (hit["_source"].get("value"), hit["_source"].get("body"))
            for hit in found
        }

    def await_writes(self, at_least: int) -> None:
        """Return once the node has taken so many more documents."""
        before = self.written()
        wait_for(lambda: self.written() >= before + at_least, f"{at_least} writes", 120)

    def _look(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """What the index tells; nothing while it does not exist or is about to be opened."""
        status, answer = self._node.request(method, f"/{self.name}{path}", body)
        assert status < 300 or status in (404, 503), answer
        return answer if status < 300 else {}

    def _remove(self) -> None:
        for name in (self.name, "waxtap-offsets"):
            status, answer = self._node.request("DELETE", f"/{name}?ignore_unavailable=true")
            assert status < 300, answer


class Writer:
    """Commits transactions of all kinds, one after the other, until it is left.

    Args:
        dsn: Of the source.
        seed: Of the transactions.
    """

    def __init__(self, dsn: str, seed: int) -> None:
        self._dsn, self._random = dsn, random.Random(seed)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer")
        self.transactions = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with psycopg.connect(self._dsn) as connection:
                while not self._stop.is_set():
                    for _ in range(self._random.choice([1, 1, 2, 5])):
                        self._step(connection)
                    connection.commit()
                    self.transactions += 1
                    self._stop.wait(self._random.expovariate(1 / 0.1))
        except BaseException as error:  # noqa: BLE001 - raised again when it is left
            self._failure = error

    def _step(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        low = self._random.randint(1, KEYS)
        word = str(self._random.randrange(10**9))
        kind = self._random.choices(
            ["put", "body", "update", "delete", "move", "back", "swap"], [7, 3, 8, 3, 3, 2, 2]
        )[0]
        if kind in ("put", "body"):
            body = "".join(self._random.choices("abcdefgh", k=BODY)) if kind == "body" else None
            several = 3 if body else 15
            connection.execute(
                "INSERT INTO items SELECT i, %s || '/' || i, %s::text"
                " FROM generate_series(%s::int, %s) i"
                " ON CONFLICT (id) DO UPDATE SET value = excluded.value, body = excluded.body",
                [word, body, low, low + several],
            )
        elif kind == "update":
            connection.execute(
                "UPDATE items SET value = %s WHERE id %% 100000 BETWEEN %s AND %s",
                [word, low, low + 12],
            )
        elif kind == "delete":
            connection.execute(
                "DELETE FROM items WHERE id %% 100000 BETWEEN %s AND %s", [low, low + 6]
            )
        elif kind == "move":
            connection.execute(
                "UPDATE items SET id = id + 100000 WHERE id BETWEEN %s AND %s"
                " AND NOT EXISTS (SELECT 1 FROM items AS there WHERE there.id = items.id + 100000)",
                [low, low + 5],
            )
        elif kind == "back":
            connection.execute(
                "UPDATE items SET id = id - 100000 WHERE id - 100000 BETWEEN %s AND %s"
                " AND NOT EXISTS (SELECT 1 FROM items AS there WHERE there.id = items.id - 100000)",
                [low, low + 200],
            )
        else:
            other = low % KEYS + 1
            for old, new in ((low, -1), (other, low), (-1, other)):
                connection.execute("UPDATE items SET id = %s WHERE id = %s", [new, old])


def rows(deployment: Deployment) -> dict[int, Row]:
    with psycopg.connect(deployment.source_dsn) as connection:
        found = connection.execute("SELECT id, value, body FROM items").fetchall()
    return {id_: (value, body) for id_, value, body in found}


def with_bodies(deployment: Deployment) -> None:
    deployment.run("ALTER TABLE items ADD body text")
    deployment.run("ALTER TABLE items ALTER body SET STORAGE EXTERNAL")


def difference(index: Index, deployment: Deployment) -> dict[int, tuple[Row | None, Row | None]]:
    """Rows that are not alike, in the source and in the index."""
    source, target = rows(deployment), index.rows()
    return {
        each: (source.get(each), target.get(each))
        for each in source.keys() | target.keys()
        if source.get(each) != target.get(each)
    }


def test_an_index_follows_while_everything_is_killed(
    deployment: Deployment, mortal_elasticsearch: ElasticsearchServer
) -> None:
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    with_bodies(deployment)
    with Index(mortal_elasticsearch) as index:
        index.sink(deployment)
        with both(deployment, "search") as (capture, deliver):
            actions = ["deliver", "wipe", "capture", "nats", "node", "supplant"]
            chosen.shuffle(actions)
            began = time.monotonic()
            with Writer(deployment.source_dsn, seed) as writer:
                for action in actions:
                    wait_for(lambda: "delivering" in deliver.last_words(), "a claim", 120)
                    index.await_writes(chosen.randint(20, 200))
                    took = time.monotonic() - began
                    print(f"{took:.1f} s, {writer.transactions} transactions: {action}")
                    if action in ("deliver", "wipe"):
                        deliver.kill(wipe=action == "wipe")
                    if action == "capture":
                        capture.kill()
                    if action == "nats":
                        deployment.nats.kill()
                        deployment.nats.start()
                    if action == "node":
                        mortal_elasticsearch.kill()
                        mortal_elasticsearch.start()
                    if action == "supplant":
                        deliver.supplant()
                index.await_writes(100)
            (zombie,) = deliver.zombies
            zombie.signal(signal.SIGCONT)
            insert(deployment, 900_001, 900_100)
            assert zombie.wait(60) == [1], deliver.last_words(zombie)
            assert "FencedError" in deliver.last_words(zombie)
            print(f"{writer.transactions} transactions, {deployment.stream_sequence()} changes")
            wait_for(lambda: not difference(index, deployment), "agreement", 120)
            assert held(deployment) == 0
            assert not deliver.unasked, deliver.unasked
            stop_cleanly(capture, deliver)
            assert not difference(index, deployment)


def test_one_document_of_a_thousand_is_refused_and_comes_in_later(
    deployment: Deployment, elasticsearch_node: ElasticsearchNode
) -> None:
    with_bodies(deployment)
    with Index(elasticsearch_node) as index:
        index.sink(deployment, fields={"value": {"type": "integer"}})
        with both(deployment, "search") as (capture, deliver):
            deployment.run(
                "INSERT INTO items SELECT i, CASE i WHEN 500 THEN 'five' ELSE i::text END"
                " FROM generate_series(1, 1000) i"
            )
            wait_for(lambda: index.count() == 999, "999 documents")
            # Good ones too wait behind the one that is refused, and a key change takes them along.
            deployment.run("UPDATE items SET value = '501' WHERE id = 500")
            deployment.run("UPDATE items SET id = 2000 WHERE id = 500")
            deployment.run("UPDATE items SET value = 'last' WHERE id = 2000")
            deployment.run("INSERT INTO items VALUES (3000, '3000')")
            wait_for(lambda: index.count() == 1000, "document 3000")
            wait_for(lambda: held(deployment) == 4, "four letters")
            found = letters(deployment)
            assert [(each["state"], each["key"]) for each in found] == [
                ("failed", {"id": 500}),
                ("parked", {"id": 500}),
                ("parked", {"id": 2000}),
                ("parked", {"id": 2000}),
            ]
            assert found[0]["code"] == "elasticsearch.refused"
            assert difference(index, deployment) == {2000: (("last", None), None)}

            # A replay writes the last state of what it is given, and that is refused as well.
            told = replayed(deployment, "--all")
            assert told["failed"] == 1
            left = held(deployment)
            assert left == 4 - int(str(told["replayed"])) > 0
            assert 2000 not in index.rows()

            # Cured: from now on the index leaves out what is no number, and keeps the document.
            index.ask("POST", "/_close")
            index.ask("PUT", "/_settings", {"index.mapping.ignore_malformed": True})
            index.ask("POST", "/_open")
            told = replayed(deployment, "--key", "2000")
            assert (told["replayed"], told["failed"], told["waiting"]) == (left, 0, 0)
            assert letters(deployment) == []
            deployment.run("UPDATE items SET value = value || '0' WHERE id IN (1, 2000)")
            wait_for(lambda: not difference(index, deployment), "agreement")
            assert index.rows()[2000] == ("last0", None)
            assert 500 not in index.rows()
            stop_cleanly(capture, deliver)
