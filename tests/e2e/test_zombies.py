"""Flows that were frozen: they go on at once, or end by themselves when another took over."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e import verify_stream
from tests.e2e.flows import both
from tests.e2e.items import agree, insert, witness_of

if TYPE_CHECKING:
    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers

# Sooner than a connection is given up for its silence, after 15 s.
AT_ONCE = 10.0


@pytest.mark.parametrize("outage", ["", "nats", "database"])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
@pytest.mark.parametrize("which", ["capture", "deliver"])
def test_a_supplanted_flow_ends_by_itself_and_does_no_harm(
    deployment: Deployment, which: str, busy: bool, outage: str
) -> None:
    witness = witness_of(deployment)
    with both(deployment) as (capture, deliver):
        insert(deployment, 1, 1000)
        agree(deployment)
        flow = capture if which == "capture" else deliver
        if busy:
            insert(deployment, 1001, 8000)
        zombie = flow.supplant()
        if outage:
            # source and target lie on one server
            server = deployment.nats if outage == "nats" else deployment.source
            server.kill()
            server.start()
        insert(deployment, 8001, 9000)
        agree(deployment)
        zombie.signal(signal.SIGCONT)
        began = time.monotonic()
        if busy:
            insert(deployment, 9001, 9500)
        assert zombie.wait(30) == [1], flow.last_words(zombie)
        print(f"{which}: the zombie ended after {time.monotonic() - began:.1f} s")
        assert "FencedError" in flow.last_words(zombie)
        insert(deployment, 9501, 9600)
        agree(deployment)
        assert not capture.unasked
        assert not deliver.unasked
    stored = verify_stream.read_stream(deployment.nats.url)
    assert verify_stream.check_stream(stored, witness.read()) > 2000


def test_a_flow_that_was_frozen_goes_on_at_once(deployment: Deployment) -> None:
    with both(deployment) as (capture, deliver):
        insert(deployment, 1, 10)
        agree(deployment)
        # Several times, since it matters what they are doing when they are frozen; once so long
        # that a sign of life of NATS, due every 5 s, is missed.
        for first, frozen in ((11, 5.5), (21, 1.0), (31, 1.0), (41, 1.0)):
            for flow in (capture, deliver):
                flow.run.signal(signal.SIGSTOP)
            insert(deployment, first, first + 9)
            time.sleep(frozen)
            for flow in (capture, deliver):
                flow.run.signal(signal.SIGCONT)
            agree(deployment, patience=AT_ONCE)
        assert not capture.unasked
        assert not deliver.unasked
