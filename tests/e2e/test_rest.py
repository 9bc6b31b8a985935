"""From an API to PostgreSQL, while the flows are killed."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec
import psycopg
import pytest

from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stored import parse_headers
from tests.e2e.flows import Layout, SupervisedFlow
from tests.e2e.items import stop_cleanly, wait_for
from tests.integration.streams import stored
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers

_PAGE = 40
# So many states in a row have the same moment.
_TIES = 7


class Catalog:
    """An API's records; each state of a record has a number of its own.

    Attributes:
        settings: Of a source that polls it.
        deleted: The share of changes that delete.
    """

    settings: ClassVar[dict[str, object]] = {"records": "data", "max_deletions": "100%"}
    deleted = 0.2

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._version = 0
        self.polls = 0
        self.rows: dict[int, dict[str, object]] = {}

    def change(self, count: int) -> None:
        """Create, update and delete records."""
        with self._lock:
            for _ in range(count):
                number = self._random.randrange(200)
                self._version += 1
                if number in self.rows and self._random.random() < self.deleted:
                    del self.rows[number]
                else:
                    name = f"ü {self._version}" if self._version % 7 else None
                    row: dict[str, object] = {
                        "id": number,
                        "v": self._version,
                        "at": self._version // _TIES,
                        "name": name,
                        "tags": [number],
                    }
                    self.rows[number] = row

    def __call__(self, request: Request) -> Reply:
        _, _, query = request.target.partition("?page=")
        page = int(query or 1)
        with self._lock:
            self.polls += page == 1
            rows = list(self.rows.values())
        body = msgspec.json.encode({"data": rows[(page - 1) * _PAGE : page * _PAGE]})
        more = {"link": f'<?page={page + 1}>; rel="next"'} if len(rows) > page * _PAGE else {}
        return Reply(200, more, body)

    def states(self) -> dict[int, tuple[object, object]]:
        with self._lock:
            return {number: (row["v"], row["name"]) for number, row in self.rows.items()}


class Feed(Catalog):
    """An API that tells what has changed since a moment, with pages that cannot move."""

    settings: ClassVar[dict[str, object]] = {
        "mode": "incremental",
        "records": "data",
        "cursor": {"field": "at", "param": "since", "type": "integer"},
        "pagination": {"type": "cursor", "path": "next", "param": "after"},
    }
    deleted = 0.0

    def __call__(self, request: Request) -> Reply:
        query = parse_qs(urlsplit(request.target).query)
        since = int(query.get("since", ["0"])[0])
        after = [int(part) for part in query.get("after", ["-1.-1"])[0].split(".")]
        with self._lock:
            self.polls += "after" not in query
            rows = sorted(self.rows.values(), key=place)
        found = [row for row in rows if place(row) > after and place(row)[0] >= since]
        page = found[:_PAGE]
        following = "{}.{}".format(*place(page[-1])) if len(found) > _PAGE else None
        return Reply(200, {}, msgspec.json.encode({"data": page, "next": following}))


def place(row: dict[str, object]) -> list[int]:
    """Where a record stands in a feed."""
    return [int(str(row["at"])), int(str(row["id"]))]


def delivered(deployment: Deployment) -> dict[int, tuple[object, object]]:
    try:
        with psycopg.connect(deployment.target_dsn) as connection:
            found = connection.execute("SELECT id, v, name FROM public.catalog")
            return {int(row[0]): (row[1], row[2]) for row in found}
    except psycopg.errors.UndefinedTable:
        return {}


def agree(deployment: Deployment, catalog: Catalog) -> bool:
    return delivered(deployment) == catalog.states()


@pytest.mark.parametrize(("kind", "recovery"), [(Catalog, True), (Catalog, False), (Feed, True)])
def test_a_target_follows_an_api_while_the_flows_are_killed(
    deployment: Deployment, kind: type[Catalog], recovery: bool
) -> None:
    catalog = kind(seed=recovery)
    random_ = random.Random(recovery)
    pause = threading.Event()
    with Receiver(catalog) as api:
        source = {
            "type": "rest",
            "url": f"http://127.0.0.1:{api.port}/catalog",
            "allow_http": True,
            "key": ["id"],
            "table": "catalog",
            "interval": "20ms",
            **kind.settings,
        }
        sink = {
            "type": "postgres",
            "dsn": "${WAREHOUSE_DSN}",
            "topics": ["db.*"],
            "from": ["api"],
        }
        deployment.more = {"sources": {"api": source}, "sinks": {"warehouse": sink}}
        deployment.write_configuration()
        layout = Layout(recovery=recovery)
        with (
            SupervisedFlow(deployment, "capture/api", layout) as capture,
            SupervisedFlow(deployment, "deliver/warehouse", layout) as deliver,
        ):
            catalog.change(300)
            wait_for(partial(agree, deployment, catalog), "the first records")
            for round_ in range(4):
                polls = catalog.polls
                for _ in range(5):
                    catalog.change(30)
                    pause.wait(random_.uniform(0, 0.05))
                wait_for(lambda seen=polls: catalog.polls > seen, "a poll")  # type: ignore[misc]
                pause.wait(random_.uniform(0, 0.1))
                if round_ == 2:
                    capture.supplant()
                else:
                    capture.kill(wipe=round_ == 3)
                if round_ == 1:
                    deliver.kill()
            catalog.change(50)
            wait_for(partial(agree, deployment, catalog), "agreement")
            stop_cleanly(deliver)
            capture.stop()
    check_stream(deployment, catalog)


def check_stream(deployment: Deployment, catalog: Catalog) -> None:
    """Each state of a record lies in the stream once, later ones behind earlier ones."""
    versions: dict[int, int] = {}
    gone: set[int] = set()
    positions: list[str] = []
    nats = NatsSpec(url=(deployment.nats.url,))
    for message in stored(nats, "CDC_api"):
        headers = parse_headers(message.hdrs)
        if headers is None:
            continue
        positions.append(headers.position)
        envelope = msgspec.json.decode(message.data)
        if envelope["op"] == "d":
            key = envelope["before"]["id"]
            assert key in versions
            assert key not in gone
            gone.add(key)
            continue
        key, version = envelope["after"]["id"], envelope["after"]["v"]
        assert version > versions.get(key, 0)
        versions[key] = version
        gone.discard(key)
    assert positions == sorted(set(positions))
    assert {key: v for key, v in versions.items() if key not in gone} == {
        key: state[0] for key, state in catalog.states().items()
    }
