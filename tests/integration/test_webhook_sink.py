"""The webhook sink against real sockets: what is sent, in which order, and with which offset."""

from __future__ import annotations

import random
import threading
import time
from base64 import b64encode
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from connectors.contracts.sink import Batch
from connectors.errors import PermanentError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.offsets import BUCKET, KvOffsets
from connectors.jetstream.spec import NatsSpec
from tests.contract.sink_log import batches, change, history, model, pending
from tests.contract.webhook_sink import SECRET, Consumer
from tests.integration.streams import Background, until
from tests.integration.webhook_endpoint import OK, Endpoint, Target, creates
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("body", ["list", "ndjson"])
@pytest.mark.parametrize("seed", range(2))
def test_batches_apply_in_order_across_restarts(body: str, seed: int) -> None:
    random_ = random.Random(seed)
    log = history(seed + 50, 1500, keys=random_.choice([3, 40, 400]))
    consumer = Consumer()
    with Receiver(consumer) as receiver:
        target = Target(
            receiver.url, secrets=[SECRET], body=body, parallelism=4, max_changes=30,
            max_body=random_.choice([2048, 100_000]),
        )  # fmt: skip
        for _ in range(50):
            with target.open() as writer:
                if not (rest := pending(log, target.claim.offsets)):
                    break
                for batch in batches(target.claim, rest, 60)[: random_.randint(1, 9)]:
                    writer.write(batch)
                if random_.random() < 0.8:
                    writer.flush()
        assert not rest
    assert consumer.rows == model(log)
    assert consumer.overtaken == 0


def test_an_attempt_carries_headers_credentials_and_signatures(endpoint: Endpoint) -> None:
    replies = iter([Reply(500), Reply(500)])
    endpoint.decide = lambda _: next(replies, OK)
    other = "whsec_" + b64encode(b"n" * 32).decode()
    target = Target(
        endpoint.receiver.url,
        secrets=[other, SECRET],
        headers={"X-Tenant": "s3cret-tenant"},
        auth={"user": "me", "password": "s3cret-word"},
    )
    with target.open() as writer:
        target.write(writer, creates(1, 1))
        writer.flush()
    assert len(endpoint.came) == 3
    for _, request in endpoint.came:
        assert request.target == "/hook?token=s3cret-word"
        assert request.headers["host"] == f"127.0.0.1:{endpoint.receiver.port}"
        assert request.headers["x-tenant"] == "s3cret-tenant"
        assert request.headers["authorization"] == (
            "Basic " + b64encode(b"me:s3cret-word").decode()
        )
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("waxtap")
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
        assert len(request.headers["webhook-signature"].split()) == 2
        for secret in (SECRET, other):
            Webhook(secret).verify(request.body, request.headers)
    assert len(set(endpoint.ids)) == 1
    assert len({request.body for _, request in endpoint.came}) == 1


def test_a_token_is_sent_as_bearer(endpoint: Endpoint) -> None:
    target = Target(endpoint.receiver.url, auth={"bearer": "t0ken"})
    with target.open() as writer:
        target.write(writer, creates(1, 1))
        writer.flush()
    headers = endpoint.came[0][1].headers
    assert headers["authorization"] == "Bearer t0ken"
    assert "webhook-signature" not in headers


def test_keys_go_side_by_side_and_a_key_goes_one_by_one(endpoint: Endpoint) -> None:
    endpoint.decide = lambda _: Reply(after=0.03)
    target = Target(endpoint.receiver.url, parallelism=4)
    log = [change(n, "u", n % 6, f"v{n}") for n in range(1, 49)]
    with target.open() as writer:
        target.write(writer, log)
        writer.flush()
    spans = [(at, event["key"]["id"]) for (at, _), event in zip(
        endpoint.came, endpoint.events(), strict=True
    )]  # fmt: skip
    together = [sum(1 for at, _ in spans if at <= moment < at + 0.03) for moment, _ in spans]
    assert 2 <= max(together) <= 4
    for key in range(6):
        of_key = [at for at, whose in spans if whose == key]
        assert all(b - a > 0.025 for a, b in pairwise(of_key))
    assert sorted(endpoint.values()) == sorted(f"v{n}" for n in range(1, 49))
    for key in range(6):
        values = [v for v in endpoint.values() if int(v[1:]) % 6 == key]
        assert values == sorted(values, key=lambda v: int(v[1:]))


def test_one_key_that_fails_holds_up_only_itself_and_the_offset(endpoint: Endpoint) -> None:
    healed = threading.Event()

    def decide(request: Request) -> Reply:
        sick = msgspec.json.decode(request.body)["key"]["id"] == 5
        return Reply(500) if sick and not healed.is_set() else OK

    endpoint.decide = decide
    target = Target(endpoint.receiver.url, parallelism=3)
    log = [change(n, "u", n % 8, f"v{n}") for n in range(1, 81)]
    with target.open() as writer:
        target.write(writer, log)
        until(lambda: len({v for v in endpoint.values() if int(v[1:]) % 8 != 5}) == 70)
        until(lambda: writer.stored == 4)
        healed.set()
        writer.flush()
        assert writer.stored == 80
    seen = list(dict.fromkeys(v for v in endpoint.values() if int(v[1:]) % 8 == 5))
    assert seen == [f"v{n}" for n in range(5, 81, 8)]


def test_poison_in_a_batch_is_found_by_bisecting(endpoint: Endpoint) -> None:
    poison = 613

    def decide(request: Request) -> Reply:
        return Reply(400) if f'"v{poison}"'.encode() in request.body else OK

    endpoint.decide = decide
    log = creates(1, 1000)
    target = Target(endpoint.receiver.url, body="list", max_changes=1000)
    first, last, blamed = 0, len(log), 0
    with target.open() as writer:
        with pytest.raises(PermanentError) as caught:  # noqa: PT012 - either call may find out
            target.write(writer, log, 1000)
            writer.flush()
        assert caught.value.sequence == 0
    while not blamed:  # as the flow does
        middle = (first + last) // 2
        writer = target.sink().open(target.claim)
        with closing(writer):
            try:
                writer.write(Batch(target.claim, log[first:middle], middle))
                writer.flush()
                first = middle
            except PermanentError as error:
                last, blamed = middle, error.sequence
        if last - first == 1 and not blamed:
            blamed = log[first].sequence
    assert blamed == poison
    assert target.stored() == poison - 1
    assert len(endpoint.came) < 20


def test_larger_batches_are_split_and_a_larger_change_is_refused(endpoint: Endpoint) -> None:
    target = Target(endpoint.receiver.url, body="list", max_body=4096, max_changes=1000)
    log = [change(n, "c", n, "x" * 500) for n in range(1, 101)]
    with target.open() as writer:
        target.write(writer, log, 100)
        writer.flush()
        assert 12 < len(endpoint.came) < 40
        assert all(len(request.body) <= 4096 for _, request in endpoint.came)
        with pytest.raises(PermanentError) as caught:  # noqa: PT012 - either call may find out
            writer.write(
                Batch(
                    target.claim, [change(101, "c", 1, "y"), change(102, "c", 2, "z" * 9999)], 102
                )
            )
            writer.flush()
        assert (caught.value.code, caught.value.sequence) == ("webhook.too_large", 102)
        assert writer.stored == 101
    assert target.stored() == 101


def test_replayed_letters_have_their_ids_and_leave_the_offset(endpoint: Endpoint) -> None:
    target = Target(endpoint.receiver.url)
    log = creates(1, 10)
    with target.open() as writer:
        target.write(writer, log)
        writer.replay(log[2:5])
        assert writer.stored == 10
        before = endpoint.ids[:10]
        again = endpoint.ids[10:]
        assert sorted(again) == sorted(i for i in before if i.split("_")[2] in ("3", "4", "5"))
        endpoint.decide = lambda request: Reply(400 if b'"v4"' in request.body else 204)
        with pytest.raises(PermanentError) as caught:
            writer.replay(log[3:4])
        assert caught.value.sequence == 4
    assert target.stored() == 10


def test_offsets_in_jetstream_are_waited_for_and_stored_now_and_then(
    endpoint: Endpoint, nats_factory: NatsFactory
) -> None:
    server = nats_factory()
    nats = NatsSpec(url=(server.url,))
    with connect(nats) as connection:
        target = Target(endpoint.receiver.url, KvOffsets(nats))
        with target.open() as writer, capture_logs() as logs:
            began = time.monotonic()
            target.write(writer, creates(1, 2000), 20)
            writer.flush()
            took = time.monotonic() - began
            info = api.stream_info(connection, f"KV_{BUCKET}")
            assert info is not None
            assert info.state.last_seq <= 4 + took / 0.2
            server.kill()
            until(lambda: not connection.connected)
            target.write(writer, creates(2001, 100))
            flushing = Background(writer.flush)
            until(lambda: "target_is_in_trouble" in [e["event"] for e in logs])
            assert len(set(endpoint.ids)) == 2000  # nothing is sent by who may have been replaced
            server.start()
            flushing.result()
        assert len(set(endpoint.ids)) == 2100
        assert target.stored() == 2100
