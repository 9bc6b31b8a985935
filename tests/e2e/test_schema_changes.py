"""Tables change their shape in mid-stream, and flows are killed between: the target follows."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import nats
import psycopg
import pytest

from connectors.jetstream.connection import connect
from connectors.jetstream.shape_versions import key_of, read
from connectors.jetstream.spec import NatsSpec
from control.servers.binlog_server import BinlogServer
from tests.e2e.chaos import check_no_crash_loop
from tests.e2e.deployment import Deployment
from tests.e2e.flows import SupervisedFlow, await_capture
from tests.integration.streams import until
from tests.servers import binlog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from control.servers.nats import NatsServer
    from tests.servers.binlog import Kind
    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import PostgresFactory

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(150)]

# `{type}` and the like stand for what one of the databases writes in another way.
# What a snapshot reads has the shape of what the log tells.
FIRST = (
    "CREATE TABLE t (id integer PRIMARY KEY, n smallint, w varchar(3), gone varchar(9))",
    "INSERT INTO t VALUES (0, 0, 'abc', 'x')",
)
STEPS = (
    ("INSERT INTO t VALUES (1, 1, 'abc', 'x'), (2, 2, 'abc', 'x'), (3, 3, 'abc', 'x')",),
    ("ALTER TABLE t ADD COLUMN more decimal(5,2)", "UPDATE t SET more = 1.25 WHERE id < 3"),
    ("ALTER TABLE t {n} bigint", "UPDATE t SET n = 5000000000 WHERE id = 1"),
    ("ALTER TABLE t {w} text", "UPDATE t SET w = 'longer than three' WHERE id = 2"),
    ("ALTER TABLE t DROP COLUMN gone", "INSERT INTO t VALUES (4, 4, 'd', 4.5)"),
    ("ALTER TABLE t RENAME COLUMN w TO word", "UPDATE t SET n = n + 1"),
    ("ALTER TABLE t ADD COLUMN region varchar(9)", "UPDATE t SET region = 'eu'"),
    (
        "{key}",
        "INSERT INTO t VALUES (4, 40, 'd', 4.5, 'us')",
        "UPDATE t SET n = 41 WHERE id = 4 AND region = 'eu'",
        "DELETE FROM t WHERE id = 3",
    ),
    ("CREATE TABLE u (id integer PRIMARY KEY, v integer)", "INSERT INTO u VALUES (1, 1), (2, 2)"),
    (
        "DELETE FROM u",
        "DROP TABLE u",
        "CREATE TABLE u (id bigint PRIMARY KEY, v bigint, x varchar(5))",
        "INSERT INTO u VALUES (1, 6000000000, 'new')",
    ),
)
POSTGRES = {
    "n": "ALTER COLUMN n TYPE",
    "w": "ALTER COLUMN w TYPE",
    "key": "ALTER TABLE t ALTER region SET NOT NULL, DROP CONSTRAINT t_pkey,"
    " ADD PRIMARY KEY (id, region)",
}
MYSQL = {
    "n": "MODIFY n",
    "w": "MODIFY w",
    "key": "ALTER TABLE t MODIFY region varchar(9) NOT NULL, DROP PRIMARY KEY,"
    " ADD PRIMARY KEY (id, region)",
}
# Of PostgreSQL only: the identity, and with it what the log holds of old rows.
IDENTITY = (
    ("ALTER TABLE t REPLICA IDENTITY FULL", "UPDATE t SET n = n + 1, region = 'eu2' WHERE id = 1"),
    ("ALTER TABLE t REPLICA IDENTITY DEFAULT", "UPDATE t SET n = n + 1"),
)
COLUMNS = ("id, n, word, more, region", "id, v, x")


class Message(NamedTuple):
    subject: str
    position: str
    schema: str
    payload: dict[str, object]


def test_postgres(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> None:
    server = postgres_factory()
    deployment = Deployment(
        server,
        server,
        nats_factory(),
        tmp_path,
        tables=("*.*",),
        reading={"schema_topic": "schema.shop", "snapshot": "initial"},
    )
    steps = [[each.format(**POSTGRES) for each in step] for step in (*STEPS[:8], *IDENTITY)]
    steps += [list(step) for step in STEPS[8:]]
    follow(deployment, steps)
    # Neither a change of identity nor one of NOT NULL is one of the shape.
    check_events(deployment.nats, "public", {"t": 8, "u": 2})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'passwd' is deprecated:DeprecationWarning")
def test_mysql(
    binlog_kind: Kind, postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> None:
    try:
        deployment = Deployment(
            binlog_kind.factory(),
            postgres_factory(),
            nats_factory(),
            tmp_path,
            tables=("shop.*",),
            sink={"schema": "public"},
            reading={"schema_topic": "schema.shop", "snapshot": "initial"},
        )
        follow(deployment, [[each.format(**MYSQL) for each in step] for step in STEPS])
        check_events(deployment.nats, "shop", {"t": 8, "u": 2})
        check_statements(deployment.nats)
    finally:
        gc.collect()


def follow(deployment: Deployment, steps: Sequence[Sequence[str]]) -> None:
    """Run the steps while flows are killed, and wait until the target is the source."""
    capture = SupervisedFlow(deployment, "capture/shop")
    deliver = SupervisedFlow(deployment, "deliver/warehouse")
    run(deployment, FIRST)
    with capture, deliver:
        if isinstance(deployment.source, BinlogServer):
            until(lambda: captured(deployment.source))
        else:
            await_capture(deployment)
        # Values of columns that are added are in the log of changes alone.
        until(lambda: deployment.delivered_sequence() > 0)
        for number, step in enumerate(steps):
            run(deployment, step)
            if number in (2, 7):
                capture.kill()
            if number in (4, 8):
                deliver.kill()
        for table, columns in zip("tu", COLUMNS, strict=True):
            query = f"SELECT {columns} FROM {table} ORDER BY 1, 2"
            until(partial(agree, deployment, query))
        check_no_crash_loop(capture)
        check_no_crash_loop(deliver)


def run(deployment: Deployment, statements: Sequence[str]) -> None:
    if isinstance(deployment.source, BinlogServer):
        binlog.run(deployment.source, *statements, database="shop")
        return
    for statement in statements:
        deployment.run(statement)


def captured(source: object) -> bool:
    assert isinstance(source, BinlogServer)
    query = "SELECT 1 FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
    return bool(binlog.rows(source, query))


def agree(deployment: Deployment, query: str) -> bool:
    try:
        with psycopg.connect(deployment.target_dsn) as connection:
            found = connection.execute(query.encode()).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return False
    if isinstance(deployment.source, BinlogServer):
        return found == binlog.rows(deployment.source, query, database="shop")
    with psycopg.connect(deployment.source_dsn) as connection:
        return found == connection.execute(query.encode()).fetchall()


def check_events(server: NatsServer, schema: str, versions: dict[str, int]) -> None:
    """Each shape was told once, before its first change, and is counted in the bucket."""
    messages = asyncio.run(stored(server.url))
    told: dict[object, list[Message]] = defaultdict(list)
    known: set[object] = set()
    for message in messages:
        if "ddl" in message.payload:
            assert message.subject == "CDC.shop.schema.shop.0"
        elif message.subject == "CDC.shop.schema.shop.0":
            event = change_of(message)
            assert event["hash"] not in known
            known.add(event["hash"])
            told[event["table"]].append(message)
        elif message.schema:
            assert message.schema in known
    positions = [message.position for message in messages]
    assert positions == sorted(positions)
    with connect(NatsSpec(url=(server.url,))) as connection:
        for table, count in versions.items():
            events = [change_of(message) for message in told[table]]
            assert [event["version"] for event in events] == list(range(1, count + 1))
            assert [event["kind"] for event in events] == ["create", *["alter"] * (count - 1)]
            found, _ = read(connection, key_of("shop", schema, table))
            assert found is not None
            assert [(each.number, each.hash, each.position) for each in found.versions] == [
                (event["version"], event["hash"], event["position"]) for event in events
            ]


def check_statements(server: NatsServer) -> None:
    """Each DDL statement of the steps was told once, in order."""
    words = ("CREATE", "ALTER", "DROP")
    run_ = [each.format(**MYSQL) for step in STEPS for each in step]
    told = [message.payload.get("ddl") for message in asyncio.run(stored(server.url))]
    # MariaDB and MySQL write DROP TABLE anew, with quotes and a comment.
    texts = [str(ddl["statement"]).replace("`", "") for ddl in told if isinstance(ddl, dict)]
    expected = [each for each in run_ if each.startswith(words)]
    assert [text.partition(" /*")[0] for text in texts] == expected


def change_of(message: Message) -> dict[str, object]:
    event = message.payload["schema_change"]
    assert isinstance(event, dict)
    return event


async def stored(url: str) -> list[Message]:
    """Every change and event in the stream."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        found = []
        state = (await js.stream_info("CDC_shop")).state
        for sequence in range(state.first_seq, state.last_seq + 1):
            raw = await js.get_msg("CDC_shop", sequence)
            headers = raw.headers or {}
            if raw.subject and not raw.subject.endswith(".checkpoint"):
                found.append(
                    Message(
                        raw.subject,
                        headers["Cdc-Position"],
                        headers.get("Cdc-Schema", ""),
                        json.loads(raw.data or b"{}"),
                    )
                )
        return found
    finally:
        await client.close()
