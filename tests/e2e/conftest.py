"""The deployment that most end-to-end tests start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from control.servers.process import tail
from tests.e2e.deployment import Deployment
from tests.servers.postgres import Database, drop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from control.servers.postgres import PostgresServer
    from tests.servers.nats import NatsFactory


@pytest.fixture
def deployment(
    mortal_postgres: PostgresServer, nats_factory: NatsFactory, tmp_path: Path
) -> Iterator[Deployment]:
    """One PostgreSQL server for both ends, with the table `items` in the source."""
    server = mortal_postgres
    try:
        made = Deployment(server, server, nats_factory(), tmp_path, tables=("public.*",))
        made.run("CREATE TABLE items (id bigint PRIMARY KEY, value text)")
        yield made
    finally:
        # Shown with a test that fails, and only then.
        for log in sorted(tmp_path.glob("*.log")):
            print(f"{log.name}:\n{tail(log)}")
        if server.running:
            server.resume()
        else:
            server.start()
        for name in ("shop", "warehouse"):
            drop(Database(server, name, server.dsn(name)))
