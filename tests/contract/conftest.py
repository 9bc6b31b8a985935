"""Every connector's adapter: a new connector adds its line here and passes the suites."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from control.servers.mariadb import MariadbServer
from control.servers.mysql import MysqlServer
from control.servers.nats import NatsServer, find_nats_server
from tests.contract.elasticsearch_sink import ElasticsearchSinkAdapter
from tests.contract.mysql_source import MariadbSourceAdapter, MysqlSourceAdapter
from tests.contract.postgres_sink import PostgresSinkAdapter
from tests.contract.postgres_source import PostgresSourceAdapter
from tests.contract.rest_source import RestSourceAdapter
from tests.contract.source_reading import ids_of, read_changes
from tests.contract.webhook_sink import WebhookSinkAdapter
from tests.contract.webhook_source import WebhookSourceAdapter
from tests.servers.binlog import FAST
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from connectors.contracts.source import Checkpoint
    from control.servers.binlog_server import ServerPrograms
    from tests.contract.sink_adapter import SinkAdapter
    from tests.contract.source_adapter import SourceAdapter

# type of the connector: its adapter, and the fixture of the server that the adapter takes
SOURCES: dict[
    str,
    tuple[
        type[MysqlSourceAdapter | PostgresSourceAdapter | RestSourceAdapter | WebhookSourceAdapter],
        str,
    ],
] = {
    "mariadb": (MariadbSourceAdapter, "mortal_mariadb"),
    "mysql": (MysqlSourceAdapter, "mortal_mysql"),
    "postgres": (PostgresSourceAdapter, "mortal_postgres"),
    "rest": (RestSourceAdapter, "no_server"),
    "webhook": (WebhookSourceAdapter, "mortal_nats"),
}
SINKS = {
    "elasticsearch": (ElasticsearchSinkAdapter, "mortal_elasticsearch"),
    "postgres": (PostgresSinkAdapter, "mortal_postgres"),
    "webhook": (WebhookSinkAdapter, "nats_server"),
}
SLOW = {"elasticsearch"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each suite every connector, and each loss of history a test of its own."""
    if "source_type" in metafunc.fixturenames:
        if "loss" in metafunc.fixturenames:
            losses = [(kind, loss) for kind, entry in SOURCES.items() for loss in entry[0].LOSSES]
            metafunc.parametrize(("source_type", "loss"), losses)
        elif metafunc.definition.get_closest_marker("log_is_held"):
            holding = [kind for kind, entry in SOURCES.items() if entry[0].HOLDS_LOG]
            metafunc.parametrize("source_type", holding)
        else:
            metafunc.parametrize("source_type", SOURCES)
    if "sink_type" in metafunc.fixturenames:
        # A server that takes seconds to start is no part of `make test-fast`.
        kinds = [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in SINKS]
        metafunc.parametrize("sink_type", kinds)


@pytest.fixture(scope="package")
def mortal_mysql(mysql_programs: ServerPrograms, mysql_template: Path) -> Iterator[MysqlServer]:
    """A server that the suites kill and start again."""
    with MysqlServer(FAST, programs=mysql_programs, template=mysql_template) as server:
        yield server


@pytest.fixture(scope="package")
def mortal_mariadb(
    mariadb_programs: ServerPrograms, mariadb_template: Path
) -> Iterator[MariadbServer]:
    """As `mortal_mysql`."""
    with MariadbServer(FAST, programs=mariadb_programs, template=mariadb_template) as server:
        yield server


@pytest.fixture(scope="package")
def mortal_nats() -> Iterator[NatsServer]:
    """As `mortal_mysql`."""
    with NatsServer(program=obtain("nats", find_nats_server)) as server:
        yield server


@pytest.fixture(scope="package")
def no_server() -> None:
    """For an adapter that brings its own."""


@pytest.fixture
def source_adapter(source_type: str, request: pytest.FixtureRequest) -> Iterator[SourceAdapter]:
    adapter_class, server = SOURCES[source_type]
    adapter = adapter_class(request.getfixturevalue(server))
    yield adapter
    adapter.close()


@pytest.fixture
def begun(source_adapter: SourceAdapter) -> Checkpoint:
    """Where the source stands when it has been set up and nothing has been written yet."""
    with closing(source_adapter.source().open(None)) as reader:
        source_adapter.write([0])
        chunk = read_changes(reader, 1)[-1]
        assert ids_of(source_adapter, [chunk]) == [0]
        return chunk.checkpoint


@pytest.fixture
def sink_adapter(sink_type: str, request: pytest.FixtureRequest) -> Iterator[SinkAdapter]:
    adapter_class, server = SINKS[sink_type]
    adapter = adapter_class(request.getfixturevalue(server))
    yield adapter
    adapter.close()


@pytest.fixture(scope="session")
def connectors_under_contract() -> tuple[set[str], set[str]]:
    return set(SOURCES), set(SINKS)
