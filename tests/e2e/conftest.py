"""The deployment that most end-to-end tests start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.deployment import Deployment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import PostgresFactory


@pytest.fixture
def deployment(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> Deployment:
    """One PostgreSQL server for both ends, with the table `items` in the source."""
    server = postgres_factory()
    made = Deployment(server, server, nats_factory(), tmp_path, tables=("public.*",))
    made.run("CREATE TABLE items (id bigint PRIMARY KEY, value text)")
    return made
