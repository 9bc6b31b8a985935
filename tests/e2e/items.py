"""One small table, and the steps that most end-to-end tests share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.e2e import verify
from tests.e2e.shop import Table
from tests.e2e.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.deployment import Deployment
    from tests.e2e.flows import SupervisedFlow

ITEMS = Table("public", "items", ("id",))


def insert(deployment: Deployment, first: int, last: int) -> None:
    """One transaction of rows."""
    deployment.run(
        "INSERT INTO items SELECT i, 'value ' || i FROM generate_series(%s::bigint, %s) i",
        first,
        last,
    )


def agree(deployment: Deployment, *tables: Table, patience: float = 60.0) -> None:
    """Wait until target equals source."""
    verify.await_agreement(
        deployment.source_dsn, deployment.target_dsn, tables or (ITEMS,), patience=patience
    )


def witness_of(deployment: Deployment) -> Witness:
    return Witness(deployment.source_dsn, {"public.items": ("id",)})


def stop_cleanly(*flows: SupervisedFlow, seconds: float = 8.0) -> None:
    """End flows with SIGTERM: every process exits with 0, soon, and none had ended before."""
    ends = []
    for flow in flows:
        began = time.monotonic()
        ends.append((flow, flow.stop(), time.monotonic() - began))
    for flow, statuses, took in ends:
        assert not flow.unasked, flow.unasked
        assert set(statuses) == {0}, flow.last_words()
        assert took < seconds


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.05)
