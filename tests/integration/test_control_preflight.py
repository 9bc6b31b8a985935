"""What the service does on servers of others: preflights, and what deleted sources leave."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from control.servers.ports import free_port
from tests.integration.control_refusals import refused
from tests.integration.control_server import RunningControl, empty_bucket
from tests.servers.receiver import Receiver, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.servers.nats import NatsServer
    from tests.servers.postgres import Database, PostgresFactory

pytestmark = pytest.mark.servers


@pytest.fixture
def control(nats_server: NatsServer, database: Database) -> Iterator[RunningControl]:
    nats = NatsSpec(url=(nats_server.url,))
    empty_bucket(nats)
    environment = {"DSN": database.dsn, "AWAY": "host=127.0.0.1 port=1 password=tops3cret"}
    with capture_logs(), RunningControl(nats, environment) as running:
        yield running


def _source(dsn: str = "${DSN}", **more: str) -> config.Source:
    return config.Source(postgres=config.PostgresSource(dsn=dsn, **more))  # type: ignore[arg-type]


def test_a_connection_is_tested_registered_or_not_and_nothing_is_changed(
    control: RunningControl, database: Database
) -> None:
    test = control.config.TestConnection
    with database.connect() as connection:
        connection.execute("CREATE TABLE public.items (id bigint PRIMARY KEY)")
    assert test(cdc.TestConnectionRequest(source=_source())).ok
    sink = config.Sink(postgres=config.PostgresSink(dsn="${DSN}"), topics=["db.*"])
    assert test(cdc.TestConnectionRequest(sink=sink)).ok
    with database.connect() as connection:
        for query in (
            "SELECT count(*) FROM pg_publication",
            "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()",
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'waxtap'",
        ):
            assert connection.execute(query).fetchone() == (0,)
        connection.execute("CREATE TABLE public.keyless (value text)")

    control.config.CreateSource(cdc.CreateSourceRequest(source_id="shop", source=_source()))
    answer = test(cdc.TestConnectionRequest(name="sources/shop"))
    assert not answer.ok
    (finding,) = answer.findings
    assert finding.code == "postgres.replica_identity"
    assert "public.keyless" in finding.message
    assert "REPLICA IDENTITY FULL" in finding.cure

    away = test(cdc.TestConnectionRequest(source=_source("${AWAY}")))
    assert [one.code for one in away.findings] == ["postgres.unreachable"]
    assert "tops3cret" not in str(away)
    wrong = refused(test, cdc.TestConnectionRequest(source=_source("${UNSET}")))
    assert wrong.fields == ["source.postgres.dsn"]
    assert refused(test, cdc.TestConnectionRequest(name="sinks/none")).reason == "CONTROL_NOT_FOUND"
    assert refused(test, cdc.TestConnectionRequest()).reason == "CONTROL_MISSING"


def test_sources_without_a_database_are_tested_too(control: RunningControl) -> None:
    test = control.config.TestConnection
    url = f"http://127.0.0.1:{free_port()}"
    polled = config.RestSource(url=url, key=["id"], allow_http=True)
    answer = test(cdc.TestConnectionRequest(source=config.Source(rest=polled)))
    assert [one.code for one in answer.findings] == ["rest.connection"]
    with Receiver(lambda _: Reply(200, body=b'[{"id": 1}]')) as receiver:
        polled.url = f"http://127.0.0.1:{receiver.port}"
        assert test(cdc.TestConnectionRequest(source=config.Source(rest=polled))).ok
    verify = config.RequestVerification(bearer=["${AWAY}"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hooks = config.WebhookSource(
            verify=verify, listen=f"127.0.0.1:{taken.getsockname()[1]}", max_body="100MB"
        )
        answer = test(cdc.TestConnectionRequest(source=config.Source(webhook=hooks)))
    assert [one.code for one in answer.findings] == ["webhook.max_body", "webhook.port_in_use"]
    hooks.ClearField("max_body")
    assert test(cdc.TestConnectionRequest(source=config.Source(webhook=hooks))).ok
    assert test(cdc.TestConnectionRequest(source=config.Source(webhook=hooks))).ok


def test_a_server_that_is_not_set_up_is_told_of_with_every_fault(
    control: RunningControl, postgres_factory: PostgresFactory
) -> None:
    server = postgres_factory({"wal_level": "replica"})
    answer = control.config.TestConnection(
        cdc.TestConnectionRequest(source=_source(server.dsn(), slot="s"))
    )
    found = {one.code for one in answer.findings}
    assert {"postgres.wal_level", "postgres.no_tables"} <= found


def test_a_deleted_source_takes_its_slot_along_or_leaves_it(
    control: RunningControl, database: Database
) -> None:
    slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"

    def make() -> None:
        control.config.CreateSource(cdc.CreateSourceRequest(source_id="gone", source=_source()))
        with database.connect() as connection:
            connection.execute(
                "SELECT pg_create_logical_replication_slot('waxtap_gone', 'pgoutput')"
            )

    make()
    request = cdc.DeleteSourceRequest(
        name="sources/gone", server_objects=cdc.DISPOSAL_DROP, stream=cdc.DISPOSAL_KEEP
    )
    control.config.DeleteSource(request)
    with database.connect() as connection:
        assert connection.execute(slots).fetchall() == []
    make()
    request.server_objects = cdc.DISPOSAL_KEEP
    control.config.DeleteSource(request)
    with database.connect() as connection:
        assert connection.execute(slots).fetchall() == [("waxtap_gone",)]
        connection.execute("SELECT pg_drop_replication_slot('waxtap_gone')")


def test_what_cannot_be_removed_blocks_the_name_until_it_is_given_up(
    control: RunningControl,
) -> None:
    stub = control.config
    made = cdc.CreateSourceRequest(source_id="shop", source=_source("${AWAY}"))
    stub.CreateSource(made)
    request = cdc.DeleteSourceRequest(
        name="sources/shop", server_objects=cdc.DISPOSAL_DROP, stream=cdc.DISPOSAL_KEEP
    )
    found = refused(stub.DeleteSource, request)
    assert (found.reason, found.retry) == ("POSTGRES_UNREACHABLE", True)
    assert refused(stub.CreateSource, made).reason == "CONTROL_DISPOSING"
    assert refused(stub.DeleteSource, request).reason == "POSTGRES_UNREACHABLE"
    request.server_objects = cdc.DISPOSAL_KEEP
    stub.DeleteSource(request)
    stub.CreateSource(made)


def test_a_command_without_its_packages_says_which_to_install() -> None:
    script = (
        "import sys; sys.modules['grpc'] = None\n"
        "from control.cli.app import run; sys.exit(run(['plan']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'waxtap[control]'" in done.stderr
