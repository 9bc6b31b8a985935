"""Stateful steps while the capture flow is killed: nothing that has changed is ever left out."""

from __future__ import annotations

import itertools
import os
import random
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e import flips
from tests.e2e.deployment import Deployment
from tests.e2e.flows import Layout, SupervisedFlow, await_capture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import PostgresFactory

pytestmark = pytest.mark.servers
PIPELINES: dict[str, object] = {
    "items": {"from": ["shop"], "dedupe": {"fields": ["value"]}},
    "news": {"from": ["shop"], "topic": "news", "throttle": {"changes": 2, "every": "1s"}},
}
LAYOUTS = [Layout(), Layout(workers=2), Layout(processes=2)]
ACTIONS = ["kill", "kill", "wipe", "kill", "kill twice", "terminate", "kill nats", "kill"]
EMPTY = "begin with an empty memory"
CATCHES_UP = "bringing what the stateful steps remember up to the stream"


@pytest.fixture
def deployment(
    postgres_factory: PostgresFactory, nats_factory: NatsFactory, tmp_path: Path
) -> Deployment:
    server = postgres_factory()
    made = Deployment(
        server,
        server,
        nats_factory(),
        tmp_path,
        tables=("public.items",),
        more={"pipelines": PIPELINES},
    )
    made.run(flips.SETUP)
    return made


def told(folder: Path, words: str) -> int:
    """How often the capture flow's runs have said something."""
    logs = folder.glob("capture-shop-*.log")
    return sum(log.read_text(encoding="utf-8", errors="replace").count(words) for log in logs)


@pytest.mark.slow
def test_steps_leave_out_repetitions_and_surplus_and_nothing_else_while_the_flow_is_killed(
    deployment: Deployment,
) -> None:
    seed = int(os.environ.get("WAXTAP_CHAOS_SEED", secrets.randbelow(10**6)))
    print(f"seed {seed}")
    chance = random.Random(seed)
    workload = flips.Flips(deployment.source_dsn, seed)
    layouts = itertools.cycle(LAYOUTS)
    flow = SupervisedFlow(deployment, "capture/shop", lambda: next(layouts))
    with flow:
        await_capture(deployment)
        workload.start()
        for action in ACTIONS:
            await_progress(deployment)
            time.sleep(chance.uniform(0.0, 1.5))
            print(action)
            if action == "terminate":
                flow.terminate()
            elif action == "kill nats":
                deployment.nats.kill()
                deployment.nats.start()
            else:
                flow.kill(wipe=action == "wipe")
                if action == "kill twice":
                    await_progress(deployment)
                    flow.kill()
        await_progress(deployment)
        workload.stop()
        found = flips.stored(deployment.nats.url, "db.items")
        news = flips.stored(deployment.nats.url, "news")
    wanted = workload.histories
    assert found.keys() == wanted.keys()
    for key, history in wanted.items():
        assert flips.changes(found[key]) == flips.changes(history), f"key {key}"
    folder = deployment.folder
    # Whether a kill leaves the stream ahead of recovery is a matter of moments.
    assert told(folder, CATCHES_UP) >= 1
    # Only without a recovery folder: what a crash leaves behind can always be brought up.
    empty = told(folder, EMPTY)
    assert empty == told(folder, "recovery holds none")
    assert all(flips.repetitions(history) <= empty - 1 for history in found.values())
    assert sum(map(len, wanted.values())) - sum(map(len, found.values())) > 100
    # Throttled rows may be old, but they are the source's.
    assert {key for key, history in news.items() if history[-1] is not None} == {
        key for key, history in wanted.items() if history[-1] is not None
    }
    assert sum(map(len, news.values())) < sum(map(len, wanted.values()))


def await_progress(deployment: Deployment) -> None:
    """Return once the stream has got on; what is killed then mostly leaves it ahead of recovery."""
    before, deadline = deployment.stream_sequence(), time.monotonic() + 60
    while deployment.stream_sequence() <= before + 20:
        assert time.monotonic() < deadline, "nothing is stored any more"
        time.sleep(0.05)
