"""Pipelines in running flows, from the source's rows to the target's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.e2e import verify_stream
from tests.e2e.flows import SupervisedFlow, await_capture
from tests.e2e.items import insert, stop_cleanly, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.deployment import Deployment
    from tests.e2e.verify_stream import Stored

_MODULE = """
from dataclasses import replace

def shorten(change):
    if change.after is None:
        return change
    return replace(change, after=change.after | {"value": change.after["value"][:7], "size": 1})
"""


@pytest.mark.servers
def test_rows_arrive_as_pipelines_and_sinks_change_them(deployment: Deployment) -> None:
    (deployment.folder / "own_steps.py").write_text(_MODULE, encoding="utf-8")
    function = {"function": "own_steps:shorten", "columns": {"size": "integer"}}
    sink: dict[str, Any] = {
        "type": "postgres",
        "dsn": "${WAREHOUSE_DSN}",
        "topics": ["copies.*", "plain.*"],
        "filter": "op == 'd' || after.number % 2 == 0",
        "transform": [{"set": {"fields": {"origin": "shop"}}}],
    }
    pipelines: dict[str, Any] = {
        "copies": {
            "tables": ["public.items"],
            "filter": "op == 'd' || after.id <= 100",
            "transform": [
                {"python": function},
                {"mask": {"fields": ["value"], "with": "sha256", "salt": "pepper"}},
                {"rename": {"fields": {"id": "number"}}},
                "unwrap",
            ],
            "topic": "copies.{table}",
        }
    }
    deployment.more = {"pipelines": pipelines, "sinks": {"warehouse": sink}}
    deployment.write_configuration()
    with deployment.configuration.open("a", encoding="utf-8") as file:
        file.write('python_transforms: ["own_steps:*"]\n')
    flows = [SupervisedFlow(deployment, name) for name in ("capture/shop", "deliver/warehouse")]
    for flow in flows:
        flow.start()
    try:
        await_capture(deployment)
        deployment.run("INSERT INTO items SELECT i, 'value ' || i FROM generate_series(1, 200) i")
        deployment.run("DELETE FROM items WHERE id IN (4, 50)")
        deployment.run("UPDATE items SET id = 50 WHERE id = 2")
        deployment.run("UPDATE items SET value = 'other' WHERE id = 6")
        expected = {number: "value " + str(number) for number in range(8, 101, 2)}
        expected |= {50: "value 2", 6: "other"}
        wanted = sorted(
            (number, sha256(b"pepper" + value[:7].encode()).hexdigest(), 1, "shop")
            for number, value in expected.items()
        )
        wait_for(lambda: _rows(deployment) == wanted, "the rows of the pipeline")
    finally:
        stop_cleanly(*flows)


def _beyond(deployment: Deployment, sequence: int) -> bool:
    return deployment.stream_sequence() > sequence


def _id(stored: Stored) -> int:
    assert stored.event.key is not None
    return int(stored.event.key[0][1])


def _rows(deployment: Deployment) -> list[tuple[object, ...]]:
    with psycopg.connect(deployment.target_dsn) as connection:
        try:
            query = "SELECT number, value, size, origin FROM items ORDER BY number"
            return connection.execute(query).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


@pytest.mark.servers
def test_kills_neither_lose_nor_repeat_what_pipelines_make(deployment: Deployment) -> None:
    pipelines: dict[str, Any] = {
        "every": {"topic": "every.{table}"},
        "third": {"filter": "after.id % 3 == 0", "topic": "third.{table}"},
        "never": {"filter": "after.id < 0", "topic": "never"},
        "rows": {"transform": [{"drop": ["value"]}], "topic": "rows.{table}"},
    }
    deployment.more = {"pipelines": pipelines}

    def read() -> list[Stored]:
        return list(verify_stream.read_stream(deployment.nats.url))

    deployment.write_configuration()
    with SupervisedFlow(deployment, "capture/shop") as capture:
        await_capture(deployment)
        for first in range(1, 4501, 1500):
            insert(deployment, first, first + 1479)
            for number in range(first + 1480, first + 1500):
                insert(deployment, number, number)
            before = deployment.stream_sequence()
            wait_for(partial(_beyond, deployment, before), "progress")
            capture.kill()
        insert(deployment, 4501, 4501)
        wait_for(lambda: _id(read()[-1]) == 4501, "the last row")
    stored = read()
    topics = {topic: [one for one in stored if one.subject.split(".")[2] == topic]
              for topic in ("every", "third", "rows")}  # fmt: skip
    assert sum(map(len, topics.values())) == len(stored)
    assert [_id(one) for one in topics["every"]] == list(range(1, 4502))
    assert [_id(one) for one in topics["third"]] == list(range(3, 4502, 3))
    assert [one.position for one in topics["rows"]] == [one.position for one in topics["every"]]
    positions = [one.position for one in stored]
    assert positions == sorted(positions)
    ends = [one.transaction for one in stored if one.last]
    assert len(ends) == len(set(ends)) == len({one.transaction for one in stored})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"filter": "op != 'd' || befor.country == 'DE'"},
            "pipelines.wrong.filter: line 1, column 19: undeclared reference to 'befor.country'",
        ),
        (
            {"transform": [{"python": "os.path:join"}]},
            "pipelines.wrong.transform.0.python: os.path:join is not on the list",
        ),
    ],
)
def test_what_is_wrong_with_a_pipeline_ends_the_start_with_its_place(
    tmp_path: Path, entry: dict[str, object], said: str
) -> None:
    source = {"type": "postgres", "dsn": "host=nowhere"}
    tree = {"nats": {}, "sources": {"shop": source}, "pipelines": {"wrong": entry}}
    (tmp_path / "waxtap.yaml").write_text(json.dumps(tree), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "bytewax.run", "dataflows.main"],
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert said in done.stderr
