"""From a database to an HTTP endpoint, while everything on the way is killed."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.contract.webhook_sink import SECRET, Consumer
from tests.e2e.flows import SupervisedFlow, await_capture, both
from tests.e2e.items import insert, stop_cleanly, wait_for
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers


def hook(deployment: Deployment, receiver: Receiver, **settings: object) -> None:
    """Put the sink `hook` into the configuration."""
    sink = {
        "type": "webhook",
        "topics": ["db.*"],
        "url": receiver.url,
        "secrets": [SECRET],
        "allow_http": True,
        "allow_private": ["127.0.0.1/32"],
        **settings,
    }
    deployment.more = {"sinks": {"hook": sink}}
    deployment.write_configuration()


def rows(deployment: Deployment) -> dict[int, str]:
    with psycopg.connect(deployment.source_dsn) as connection:
        return {int(i): str(v) for i, v in connection.execute("SELECT id, value FROM items")}


def update(deployment: Deployment, round_: int) -> None:
    deployment.run("UPDATE items SET value = value || %s WHERE id %% 3 = 0", f"-{round_}")
    deployment.run("DELETE FROM items WHERE id %% 17 = %s", round_)


def further(consumer: Consumer, before: int) -> bool:
    return len(consumer.ids) > before + 50


@pytest.mark.parametrize("body", ["event", "list"])
def test_an_endpoint_follows_while_everything_is_killed(deployment: Deployment, body: str) -> None:
    consumer = Consumer()
    with Receiver(consumer) as receiver:
        hook(deployment, receiver, body=body)
        with both(deployment, "hook") as (capture, deliver):
            zombies = []
            for round_ in range(6):
                insert(deployment, 600 * round_ + 1, 600 * round_ + 600)
                update(deployment, round_)
                wait_for(partial(further, consumer, len(consumer.ids)), "deliveries")
                if round_ in (0, 1, 4):
                    deliver.kill(wipe=round_ == 1)
                elif round_ == 2:
                    receiver.kill()
                    deliver.kill()
                    receiver.start()
                elif round_ == 3:
                    deployment.nats.kill()
                    deployment.nats.start()
                else:
                    zombies.append(deliver.supplant())
            update(deployment, 7)
            for zombie in zombies:
                zombie.signal(signal.SIGCONT)
                assert zombie.wait(30) == [1], deliver.last_words(zombie)
                assert "FencedError" in deliver.last_words(zombie)
            wait_for(lambda: consumer.rows == rows(deployment), "agreement")
            assert consumer.overtaken == 0
            assert not capture.unasked
            assert not deliver.unasked


def test_a_stopped_flow_has_stored_where_it_is(deployment: Deployment) -> None:
    consumer = Consumer()
    with Receiver(consumer) as receiver, SupervisedFlow(deployment, "capture/shop"):
        hook(deployment, receiver)
        await_capture(deployment)
        for first in (1, 501):
            deliver = SupervisedFlow(deployment, "deliver/hook").start()
            try:
                insert(deployment, first, first + 499)
                wait_for(lambda: consumer.rows == rows(deployment), "agreement")
            finally:
                stop_cleanly(deliver)
        assert consumer.repeated == 0


def test_an_endpoint_that_is_gone_is_asked_once_a_start_and_resumed(
    deployment: Deployment,
) -> None:
    consumer = Consumer()
    asked: list[Request] = []
    gone = True

    def answer(request: Request) -> Reply:
        if gone:
            asked.append(request)
            return Reply(410)
        return consumer(request)

    with Receiver(answer) as receiver, SupervisedFlow(deployment, "capture/shop"):
        hook(deployment, receiver)
        await_capture(deployment)
        insert(deployment, 1, 300)
        with SupervisedFlow(deployment, "deliver/hook") as deliver:
            wait_for(lambda: len(deliver.unasked) >= 2, "two starts")
            assert "webhook.gone" in deliver.unasked[0].last_words
            assert len(asked) <= len(deliver.unasked) + 1
            assert len({request.headers["webhook-id"] for request in asked}) == 1
            gone = False
            wait_for(lambda: consumer.rows == rows(deployment), "agreement")
