"""Source and sink follow the TLS options of their DSN."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from connectors.contracts.sink import Share
from connectors.errors import ConfigError, RetryableError
from connectors.postgres.sink import PostgresSink
from connectors.postgres.spec import SinkSpec
from tests.contract.context import sink_context
from tests.integration.postgres_capture import ids, make_source, read_changes

if TYPE_CHECKING:
    from pathlib import Path

    from control.servers.postgres import PostgresServer
    from tests.servers.certificate import Certificate
    from tests.servers.postgres import PostgresFactory

pytestmark = pytest.mark.servers


@pytest.fixture
def server(postgres_factory: PostgresFactory, certificate: Certificate) -> PostgresServer:
    made = postgres_factory()
    files = {
        "ssl_cert_file": made.put_file("server.crt", certificate.certificate.read_bytes()),
        "ssl_key_file": made.put_file("server.key", certificate.key.read_bytes()),
    }
    return made.restart({"ssl": "on", **{name: str(path) for name, path in files.items()}})


def verified(server: PostgresServer, authority: Path) -> str:
    return make_conninfo(server.dsn(), sslmode="verify-full", sslrootcert=str(authority))


def test_every_session_of_a_source_is_encrypted(
    server: PostgresServer, certificate: Certificate
) -> None:
    dsn = verified(server, certificate.certificate)
    with closing(psycopg.connect(server.dsn(), autocommit=True)) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY)")
        with closing(make_source(dsn).open(None)) as reader:
            connection.execute("INSERT INTO items VALUES (1)")
            assert ids(read_changes(reader, 1)) == [1]
            sessions = connection.execute(
                "SELECT backend_type, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
                " WHERE application_name = 'waxtap/shop'"
            ).fetchall()
    assert ("walsender", True) in sessions
    assert all(encrypted for _, encrypted in sessions)


def test_a_sink_verifies_its_server(
    server: PostgresServer, certificate: Certificate, tmp_path: Path
) -> None:
    share = Share("warehouse", "CDC_shop", "2026-01-01T00:00:00Z", ("CDC.shop.db.items.*",))
    spec = SinkSpec.model_validate(
        {"type": "postgres", "dsn": verified(server, certificate.certificate)}
    )
    assert PostgresSink("warehouse", spec, sink_context()).claim(share).epoch == 1
    strange = tmp_path / "other.pem"
    strange.write_text("")
    refused = SinkSpec.model_validate({"type": "postgres", "dsn": verified(server, strange)})
    with pytest.raises((ConfigError, RetryableError), match="certificate"):
        PostgresSink("warehouse", refused, sink_context()).claim(share)
