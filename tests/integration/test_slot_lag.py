"""How much log a slot may hold back, who sees it, and what is done about it."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError
from structlog.testing import capture_logs

from connectors.errors import GapError
from connectors.jetstream.spec import NatsSpec
from connectors.postgres.spec import SourceSpec
from dataflows.capture import CaptureSource
from dataflows.spec import SourceConfig
from tests.integration.postgres_capture import ids, make_source, read_changes, read_until
from tests.integration.streams import until

if TYPE_CHECKING:
    from connectors.contracts.source import Checkpoint
    from connectors.postgres.source import PostgresSource
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers
_SEGMENT = 16 * 1024 * 1024


def _begun(source: PostgresSource) -> Checkpoint:
    with closing(source.open(None)) as reader:
        chunk = reader.read()
        assert chunk is not None
        return chunk.checkpoint


def _write_log(database: Database, segments: int) -> None:
    with closing(database.connect()) as writer:
        for number in range(segments):
            writer.execute("INSERT INTO items VALUES (%s)", [number])
            writer.execute("SELECT pg_switch_wal()")
        writer.execute("INSERT INTO items VALUES (%s)", [segments])


def _slots(database: Database) -> int:
    with closing(database.connect()) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
        )
        return len(found.fetchall())


@pytest.fixture
def table(database: Database) -> Database:
    with closing(database.connect()) as writer:
        writer.execute("CREATE TABLE items (id int PRIMARY KEY)")
    return database


def test_half_of_the_limit_is_worth_a_warning_and_no_more(table: Database) -> None:
    source = make_source(table.dsn, table.name, max_slot_lag=4 * _SEGMENT)
    assert source.guard() is None
    _begun(source)
    health = source.guard()
    assert health is not None
    assert (health.endangered, health.limit, health.message) == (False, 4 * _SEGMENT, "")
    _write_log(table, 3)
    health = source.guard()
    assert health is not None
    assert health.endangered
    assert 2 * _SEGMENT <= health.retained <= 4 * _SEGMENT
    assert "of 64.0 MiB that it may (max_slot_lag)" in health.message
    with closing(table.connect()) as writer:
        for _ in range(2):
            writer.execute("SELECT pg_logical_emit_message(false, 'x', 'x')")
            writer.execute("SELECT pg_switch_wal()")
    health = source.guard()
    assert health is not None
    assert health.retained > health.limit
    assert not health.dropped
    assert _slots(table) == 1


def test_beyond_the_limit_a_slot_is_dropped_and_the_loss_can_be_accepted(table: Database) -> None:
    source = make_source(table.dsn, table.name, max_slot_lag=_SEGMENT, on_slot_lag="drop")
    stored = _begun(source)
    _write_log(table, 2)
    # Also while it is being read.
    with closing(source.open(stored)) as reader:
        health = source.guard()
        assert health is not None
        assert health.dropped == f"slot waxtap_{table.name}"
        assert "more than max_slot_lag (16.0 MiB)" in health.message
        with pytest.raises(GapError) as caught:
            read_until(reader, lambda _: False)
    assert caught.value.code == "postgres.slot_missing"
    assert source.guard() is None
    with pytest.raises(GapError) as refused:
        source.open(stored)
    token = f"gap:waxtap_{table.name}@{stored.state['lsn']}"
    assert token in refused.value.cure
    accepting = make_source(table.dsn, table.name, accept=[token])
    with closing(accepting.open(stored)) as reader, closing(table.connect()) as writer:
        writer.execute("INSERT INTO items VALUES (99)")
        assert ids(read_changes(reader, 1)) == [99]


def test_a_flow_that_waits_for_nats_saves_the_server_all_the_same(table: Database) -> None:
    _begun(make_source(table.dsn, table.name))
    _write_log(table, 2)
    spec = SourceSpec.model_validate(
        {"type": "postgres", "dsn": table.dsn, "max_slot_lag": "16MiB", "on_slot_lag": "drop"}
    )
    nowhere = NatsSpec(url=("nats://127.0.0.1:1",))
    flow = CaptureSource(nowhere, {table.name: SourceConfig(table.name, "postgres", spec, ())})
    with capture_logs() as logs, closing(flow.build_part("capture", table.name, None)) as part:
        until(lambda: _slots(table) == 0)

        with pytest.raises(GapError) as caught:
            until(lambda: bool(part.next_batch()))
    assert caught.value.code == "source.log_given_up"
    assert "start the source again" in caught.value.cure
    told = [line for line in logs if line["event"] == "given up to save the server"]
    assert [line["what"] for line in told] == [f"slot waxtap_{table.name}"]
    labels = {"source": table.name}
    assert REGISTRY.get_sample_value("waxtap_source_log_endangered", labels) == 1
    assert REGISTRY.get_sample_value("waxtap_source_log_limit_bytes", labels) == _SEGMENT
    assert (REGISTRY.get_sample_value("waxtap_source_log_retained_bytes", labels) or 0) > _SEGMENT
    assert not [each for each in threading.enumerate() if each.name == f"waxtap-{table.name}-log"]


def test_a_slot_of_somebody_elses_is_never_dropped() -> None:
    with pytest.raises(ValidationError, match="on_slot_lag: drop goes with max_slot_lag"):
        SourceSpec.model_validate(
            {
                "type": "postgres", "dsn": "", "create": False,
                "max_slot_lag": "1GiB", "on_slot_lag": "drop",
            }
        )  # fmt: skip
