"""The stored backlog through the delivery flow into Elasticsearch, and its bulk API without us."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg

from bench.backlog import TABLE
from bench.capture import Captured
from bench.errors import FailedError, UnavailableError
from bench.fleet import Fleet
from bench.flow import STREAM, Setup
from bench.settings import Settings
from bench.stream import StreamObserver
from bench.stretch import measure
from control.servers.elasticsearch import ElasticsearchServer
from control.servers.elasticsearch_programs import ElasticsearchPrograms, find_elasticsearch
from control.servers.errors import ServerMissingError

_INDEX = f"db.{TABLE}"
_LIMIT = "limit"
_BULK = 1000
# As many as the sink has by default.
_SIDE_BY_SIDE = 2


def run(fleet: Fleet, captured: Captured, settings: Settings, number: int) -> dict[str, float]:
    """Deliver a part of the stream, then send the same rows to the same node as fast as it goes.

    The clock and the CPU time run from the first document to the one that makes the number full.

    Args:
        fleet: The servers.
        captured: A NATS store that holds the backlog.
        settings: Sizes.
        number: Of the run.

    Raises:
        FailedError: The flow ended, did not get through, or the node refused a document.
        UnavailableError: There is no Elasticsearch on this machine.
    """
    with ElasticsearchServer(quick=False, programs=_programs()) as node:
        bodies = _bodies(fleet, settings.documents)
        # A node that has just started compiles more than it indexes.
        _fill(node, f"{_LIMIT}-warm", bodies)
        figures = _deliver(fleet, captured, settings, number, node)
        mapping = _ask(node, "GET", f"/{_INDEX}/_mapping")[_INDEX]["mappings"]
        _ask(node, "PUT", f"/{_LIMIT}", {"mappings": mapping})
        clock = time.monotonic()
        _fill(node, _LIMIT, bodies)
        figures["elasticsearch_bulk_per_s"] = settings.documents / (time.monotonic() - clock)
    return figures


def _fill(node: ElasticsearchServer, index: str, bodies: list[bytes]) -> None:
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as senders:
        for _ in senders.map(partial(_send, node, index), bodies):
            pass


def _deliver(
    fleet: Fleet, captured: Captured, settings: Settings, number: int, node: ElasticsearchServer
) -> dict[str, float]:
    with (
        fleet.nats(captured.store) as server,
        StreamObserver(server.url, STREAM) as stream,
    ):
        stream.delete_consumers()
        setup = Setup(
            fleet.folder / f"elasticsearch_{number}", server.url, fleet.source.dsn(),
            fleet.target.dsn(), "unused", elasticsearch=node.url,
        )  # fmt: skip
        with setup.start("deliver/search") as process:
            stretch = measure(
                process, lambda: _indexed(node), settings.documents,
                what="document", timeout=settings.timeout_seconds,
            )  # fmt: skip
            process.stop()
    return {
        "deliver_elasticsearch_per_s": stretch.per_second,
        "deliver_elasticsearch_cpu_us": stretch.cpu_us,
        "rss_elasticsearch_mb": stretch.peak_mb,
    }


def _programs() -> ElasticsearchPrograms:
    try:
        return find_elasticsearch()
    except ServerMissingError as error:
        raise UnavailableError(str(error)) from error


def _bodies(fleet: Fleet, documents: int) -> list[bytes]:
    """Bulk requests of the backlog's rows, made beforehand."""
    with psycopg.connect(fleet.source.dsn()) as connection:
        rows = connection.execute(
            f"select id, row_to_json(t)::text from {TABLE} t where id <= %s order by id",
            [documents],
        ).fetchall()
    lines = [f'{{"index":{{"_id":"{number}"}}}}\n{row}\n' for number, row in rows]
    return ["".join(lines[start : start + _BULK]).encode() for start in range(0, documents, _BULK)]


def _send(node: ElasticsearchServer, index: str, body: bytes) -> None:
    path = f"/{index}/_bulk?filter_path=errors"
    if _ask(node, "POST", path, body) != {"errors": False}:
        raise FailedError("the node refused a document")


def _indexed(node: ElasticsearchServer) -> int:
    """How many documents the index has taken; 0 while there is none."""
    path = f"/{_INDEX}/_stats/indexing?filter_path=_all.primaries.indexing.index_total"
    _, answer = node.request("GET", path)
    # The answer is empty until its shard is there.
    return int(answer["_all"]["primaries"]["indexing"]["index_total"]) if answer.get("_all") else 0


def _ask(node: ElasticsearchServer, method: str, path: str, body: object = None) -> dict[str, Any]:
    status, answer = node.request(method, path, body)
    if status >= 300:
        raise FailedError(f"{method} {path}: {json.dumps(answer)}")
    return answer
