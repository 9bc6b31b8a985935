"""Exactly once while everything is killed."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e import chaos
from tests.e2e.deployment import Deployment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import PostgresFactory

KILLS = 30
LONGEST = 420.0


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(600)
def test_nothing_is_lost_repeated_or_reordered_while_everything_is_killed(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> None:
    seed = int(os.environ.get("WAXTAP_CHAOS_SEED", secrets.randbelow(10**6)))
    deployment = Deployment(
        source=postgres_factory(),
        target=postgres_factory(),
        nats=nats_factory(),
        folder=tmp_path,
        more=chaos.PARTITIONED,
    )
    deadline = time.monotonic() + LONGEST

    def enough(report: chaos.Report) -> bool:
        assert time.monotonic() < deadline, f"only {report.kills} kills in {LONGEST:.0f} s"
        return report.kills >= KILLS

    report = chaos.run(deployment, seed, enough, say=lambda line: print(line, flush=True))
    assert report.kills >= KILLS
    assert report.transactions > 500
    assert report.changes > 1000
