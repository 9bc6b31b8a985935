"""Exactly once from MySQL and MariaDB while everything is killed."""

from __future__ import annotations

import gc
import os
import secrets
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from control.servers.nats import find_nats_server
from control.servers.postgres_programs import find_programs
from tests.e2e.binlog_chaos import Ground, deploy, run_chaos
from tests.servers.require import obtain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.chaos import Report
    from tests.servers.binlog import Kind

KILLS = 8
LONGEST = 400.0


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(600)
# PyMySQL leaves the socket of a connection that was lost to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
# mysql-replication calls PyMySQL by a name that has gone out of use
@pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'passwd' is deprecated:DeprecationWarning")
def test_nothing_is_lost_repeated_or_reordered_while_everything_is_killed(
    binlog_kind: Kind, tmp_path: Path
) -> None:
    try:
        _run(binlog_kind, tmp_path)
    finally:
        # those sockets are this test's, and not to be found by a later one
        gc.collect()


def _run(binlog_kind: Kind, tmp_path: Path) -> None:
    obtain("postgres", find_programs, "postgresql")
    obtain("nats", find_nats_server)
    seed = int(os.environ.get("WAXTAP_CHAOS_SEED", secrets.randbelow(10**6)))
    deadline = time.monotonic() + LONGEST

    def enough(report: Report) -> bool:
        assert time.monotonic() < deadline, f"only {report.kills} kills in {LONGEST:.0f} s"
        return report.kills >= KILLS

    with ExitStack() as stack:
        source = binlog_kind.factory()
        ground = Ground(deploy(stack, source, tmp_path), source)
        report = run_chaos(ground, seed, enough, say=lambda line: print(line, flush=True))
    assert report.kills >= KILLS
    assert report.transactions > 50
    assert report.changes > 500
