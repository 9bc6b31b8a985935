"""Pipelines between real databases and a real stream, without a dataflow around them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest

from connectors.contracts.changes import Delivered, Failure
from connectors.contracts.sink import Claim
from connectors.jetstream.consumer import Consumer, share
from connectors.jetstream.frames import read_headers
from dataflows.capture import CaptureSource, StreamSink
from dataflows.pipeline import pipelines_of, reprocess
from dataflows.spec import Config, parse
from tests.integration.streams import read, stored, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import Database, DatabaseFactory

pytestmark = pytest.mark.servers

SETUP = """
CREATE TABLE users (id bigint PRIMARY KEY, email text, country text, note text);
CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL,
                     aggregateid text NOT NULL, type text NOT NULL, payload jsonb);
"""


def waxtap(*arguments: str) -> str:
    """What the command prints; it must succeed."""
    command = [sys.executable, "-c", "from control.cli.app import main; main()", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


class Flow:
    """The capture of one source, step by step."""

    def __init__(self, config: Config, name: str) -> None:
        self.source = CaptureSource(config.nats, config.sources).build_part("capture", name, None)
        self.sink = StreamSink(config.nats, config.sources).build_part(
            "publish", f"CDC_{name}", None
        )
        self.pipelines = pipelines_of(config, name)
        self.ended = False

    def step(self) -> bool:
        """Store the next chunk; whether there was one. `ended` is set by a logical message."""
        for captured in self.source.next_batch():
            self.ended |= any(one.op == "m" for one in captured.chunk.changes)
            self.sink.write_batch([self.pipelines.apply(captured)])
            return True
        return False

    def close(self) -> None:
        self.sink.close()
        self.source.close()


class Site:
    """Two shops, the pipelines over them, and the streams that they fill."""

    def __init__(self, databases: list[Database], url: str, pipelines: dict[str, Any]) -> None:
        names = ("north", "south")[: len(databases)]
        self.names = [f"{name}_{databases[0].name[-12:]}" for name in names]
        self.databases = dict(zip(self.names, databases, strict=True))
        self.captured: set[str] = set()
        self.tree: dict[str, Any] = {
            "nats": {"url": url},
            "sources": {
                name: {
                    "type": "postgres",
                    "dsn": database.dsn,
                    "tables": ["public.*"],
                    "snapshot": "never",
                }
                for name, database in self.databases.items()
            },
            "topics": {"people.users": {"partitions": 4}},
            "pipelines": pipelines,
            "sinks": {"out": {"type": "postgres", "dsn": "host=nowhere", "topics": ["*"]}},
        }

    @property
    def config(self) -> Config:
        return parse(self.tree, {})

    def capture(self, *queries: str) -> None:
        """Run queries in every database, and store what comes of them."""
        config = self.config
        with ExitStack() as stack:
            for name, database in self.databases.items():
                flow = stack.enter_context(closing(Flow(config, name)))
                if name not in self.captured:
                    until(flow.step)  # the first chunk tells that the slot is there
                    self.captured.add(name)
                with database.connect() as connection:
                    for query in (*queries, "SELECT pg_logical_emit_message(false, 'end', '')"):
                        connection.execute(query.encode())
                until(lambda flow=flow: flow.step() and flow.ended)  # type: ignore[misc]
                flow.sink.snapshot()

    def messages(self, source: str) -> list[tuple[str, dict[str, str], bytes]]:
        """Subject, headers and payload of every change in a source's stream."""
        found = []
        for message in stored(self.config.nats, f"CDC_{source}"):
            headers = read_headers(message.hdrs)
            if "Cdc-Position" in headers:
                found.append((message.subject, headers, message.data))
        return found

    def delivered(self, source: str, count: int, *topics: str) -> list[Delivered]:
        """What a sink that reads these topics is given."""
        nats = self.config.nats
        found = share(nats, "out", f"CDC_{source}", topics)
        assert found is not None
        claim = Claim(found, 1, dict.fromkeys(found.subjects, 0))
        with closing(Consumer(nats, claim)) as consumer:
            return read(consumer, count)


@pytest.fixture
def databases(database_factory: DatabaseFactory) -> list[Database]:
    made = [database_factory(), database_factory()]
    for database in made:
        with database.connect() as connection:
            connection.execute(SETUP)
    return made


def test_changes_of_two_sources_take_every_way_that_pipelines_give_them(
    databases: list[Database], nats_factory: NatsFactory
) -> None:
    pipelines: dict[str, Any] = {
        "people": {
            "tables": ["public.users"],
            "filter": "op != 'd' || before.country == 'DE'",
            "transform": [
                {"mask": {"fields": ["email"], "with": "sha256", "salt": "pepper"}},
                {"rename": {"fields": {"id": "user_id"}}},
            ],
            "topic": "people.{table}",
        },
        "rows": {
            "tables": ["public.users"],
            "topic": "rows.{schema}.{source}",
            "transform": [{"keep": ["email"]}, "unwrap"],
        },
        "events": {"tables": ["*.outbox"], "transform": ["outbox"]},
    }
    site = Site(databases, nats_factory().url, pipelines)
    north, south = site.names
    site.capture(
        "INSERT INTO users VALUES (1, 'a@x', 'DE', NULL), (2, 'b@x', 'FR', NULL)",
        "UPDATE users SET id = 3 WHERE id = 1",
        "DELETE FROM users WHERE id = 2",
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)"
        " VALUES ('Order', '42', 'Paid', '{\"n\": 1.10}')",
        "DELETE FROM outbox",
    )
    for source in (north, south):
        messages = site.messages(source)
        keys = [f'{{"user_id":{number}}}' for number in (1, 2, 3, 2)]
        numbers = [crc32(key.encode()) % 4 for key in keys]
        rows = f"CDC.{source}.rows.public.{source}.0"
        assert [(subject, headers.get("Cdc-Op")) for subject, headers, _ in messages] == [
            (f"CDC.{source}.people.users.{numbers[0]}", None),
            (rows, "c"),
            (f"CDC.{source}.people.users.{numbers[1]}", None),
            (rows, "c"),
            (f"CDC.{source}.people.users.{numbers[2]}", None),
            (rows, "d"),
            (rows, "c"),
            (f"CDC.{source}.dead.people.users.{numbers[3]}", None),
            (rows, "d"),
            (f"CDC.{source}.outbox.event.Order.0", None),
        ]
        positions = [headers["Cdc-Position"] for _, headers, _ in messages]
        assert positions == sorted(positions)
        ends = [headers["Cdc-Tx"].endswith(";last") for _, headers, _ in messages]
        assert ends == [False, False, False, True, False, False, True, False, True, True]
        assert messages[1][2] == b'{"id":1,"email":"a@x"}'
        assert messages[5][2] == b"null"
        assert messages[9][1]["Cdc-Key"] == '{"aggregateid":"42"}'
        assert b'"payload":{"n": 1.10}' in messages[9][2]

    people = {source: site.delivered(source, 4, "people.*") for source in (north, south)}
    # fan-in: the same topic, in two streams
    assert {one.subject.split(".", 2)[2].rsplit(".", 1)[0] for one in people[north][:3]} == {
        one.subject.split(".", 2)[2].rsplit(".", 1)[0] for one in people[south][:3]
    }
    first, _, moved, letter = people[north]
    assert first.table is not None
    assert [column.name for column in first.table.columns] == [
        "user_id",
        "email",
        "country",
        "note",
    ]
    assert first.table.key == ("user_id",)
    assert len(json.loads(first.envelope)["after"]["email"]) == 64
    assert json.loads(moved.envelope)["before"] == {"user_id": 1}
    failure = Failure.decode(letter.failed)
    assert (failure.pipeline, failure.code) == ("people", "filter.no_such_field")
    assert letter.key == '{"user_id":2}'
    assert json.loads(letter.envelope)["before"] == {"id": 2}

    unwrapped = site.delivered(north, 5, "rows.*")
    assert [json.loads(one.envelope) for one in unwrapped[2:]] == [
        {"before": {"id": 1}, "after": None, "op": "d"},
        {"before": None, "after": {"id": 3, "email": "a@x"}, "op": "c"},
        {"before": {"id": 2}, "after": None, "op": "d"},
    ]

    site.tree["pipelines"]["people"]["filter"] = "op == 'd'"
    config = site.config
    [again] = reprocess(config, config.sinks["out"], letter)
    assert (again.failed, again.sequence) == ("", letter.sequence)
    number = crc32(b'{"user_id":2}') % 4
    assert again.subject == f"CDC.{north}.people.users.{number}"
    assert json.loads(again.envelope)["before"] == {"user_id": 2}


def test_more_partitions_later_keep_the_order_of_what_is_stored(
    databases: list[Database], nats_factory: NatsFactory
) -> None:
    site = Site(databases[:1], nats_factory().url, {"all": {"topic": "people.{table}"}})
    [source] = site.names
    for partitions in (1, 8, 3):
        site.tree["topics"] = {"people.users": {"partitions": partitions}}
        site.capture(
            "INSERT INTO users SELECT i FROM generate_series(1, 40) i ON CONFLICT (id)"
            f" DO UPDATE SET note = '{partitions}'"
        )
    given = site.delivered(source, 120, "people.users")
    assert len({one.subject for one in given}) == 8
    assert [one.position for one in given] == sorted(one.position for one in given)
    for number in range(1, 41):
        notes = [json.loads(one.envelope)["after"]["note"] for one in given
                 if one.key == f'{{"id":{number}}}']  # fmt: skip
        assert notes == [None, "8", "3"]


def test_what_is_kept_of_a_transaction_ends_with_its_mark(
    databases: list[Database], nats_factory: NatsFactory
) -> None:
    pipelines = {
        "few": {"tables": ["public.users"], "filter": "after.id % 7 == 1", "topic": "few"},
        "same": {"tables": ["public.users"], "filter": "after.id == 8", "topic": "same"},
    }
    site = Site(databases, nats_factory().url, pipelines)
    site.capture(
        "INSERT INTO users SELECT i FROM generate_series(1, 20) i",
        "INSERT INTO users SELECT i FROM generate_series(23, 28) i",
        "INSERT INTO users SELECT i FROM generate_series(1, 0) i",
    )
    messages = site.messages(site.names[0])
    assert [(subject.split(".")[2], payload) for subject, _, payload in messages] == [
        ("few", messages[0][2]),
        ("few", messages[1][2]),
        ("same", messages[1][2]),
        ("few", messages[3][2]),
    ]
    ends = [headers["Cdc-Tx"].endswith(";last") for _, headers, _ in messages]
    assert ends == [False, False, False, True]


def test_a_pipeline_is_tried_on_the_changes_of_a_stream(
    databases: list[Database],
    nats_factory: NatsFactory,
    tmp_path: Path,
) -> None:
    site = Site(databases, nats_factory().url, {"all": {"tables": ["public.users"]}})
    site.capture("INSERT INTO users SELECT i, i || '@x' FROM generate_series(1, 5) i")
    site.tree["pipelines"]["new"] = {
        "filter": "after.id != 4",
        "transform": [{"drop": ["note"]}],
        "topic": "new.{table}",
    }
    path = tmp_path / "waxtap.yaml"
    path.write_text(json.dumps(site.tree))
    told = waxtap("try", "-c", str(path), "--pipeline", "new", "--live", "3")
    assert [line for line in told.splitlines() if line[0] != " "] == [
        f'{place}. public.users {{"id":{number}}}' for place, number in enumerate((3, 4, 5), 1)
    ]
    assert "after    " in told
    assert f'in CDC.{site.names[0]}.new.users.0, key {{"id":5}}' in told
    assert "dropped  the filter is false" in told
