"""The webhook sink against real sockets: every kind of trouble that an endpoint can make."""

from __future__ import annotations

import random
import ssl
import threading
import time
from base64 import b64encode
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from connectors.contracts.sink import Batch, SinkContext
from connectors.errors import ConfigError, FatalError, PermanentError, RetryableError, WaxtapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.offsets import BUCKET, KvOffsets
from connectors.jetstream.spec import NatsSpec
from connectors.webhook.network import resolve
from connectors.webhook.sink import WebhookSink
from connectors.webhook.spec import SinkSpec
from tests.contract.context import MemoryOffsets
from tests.contract.sink_log import SHARE, batches, change, history, model, pending
from tests.contract.webhook_sink import SECRET, Consumer
from tests.integration.streams import Background, until
from tests.servers.receiver import Receiver, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import OffsetStore, SinkWriter
    from connectors.webhook.network import Resolve
    from tests.servers.certificate import Certificate
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

OK = Reply()


class Endpoint:
    """A receiver whose answers a test decides, and what came in, with the time.

    Attributes:
        decide: What is done about a request.
        came: When, and what.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.decide: Callable[[Request], Reply] = lambda _: OK
        self.came: list[tuple[float, Request]] = []
        self.receiver = Receiver(self._answer, tls)

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for _, request in self.came]

    def values(self) -> list[str]:
        return [event["data"]["after"]["value"] for event in self.events()]

    def events(self) -> list[dict[str, Any]]:
        told = [msgspec.json.decode(request.body) for _, request in self.came]
        return [event for each in told for event in (each if isinstance(each, list) else [each])]

    def _answer(self, request: Request) -> Reply:
        self.came.append((time.monotonic(), request))
        return self.decide(request)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.receiver.close()


class Target:
    """A sink for the endpoint, whose offsets live as long as the test."""

    def __init__(self, url: str, offsets: OffsetStore | None = None, **settings: object) -> None:
        tree = {
            "type": "webhook", "url": url, "allow_http": True, "allow_private": ["127.0.0.1/32"],
            **settings,
        }  # fmt: skip
        self.stop = threading.Event()
        self.resolver: Resolve = resolve
        self._spec = SinkSpec.model_validate(tree)
        self._context = SinkContext(self.stop, offsets or MemoryOffsets())

    def sink(self) -> WebhookSink:
        return WebhookSink("warehouse", self._spec, self._context, self.resolver)

    def open(self) -> closing[SinkWriter]:
        sink = self.sink()
        self.claim = sink.claim(SHARE)
        return closing(sink.open(self.claim))

    def write(self, writer: SinkWriter, log: Sequence[Delivered], size: int = 50) -> None:
        for batch in batches(self.claim, log, size):
            writer.write(batch)

    def stored(self) -> int:
        return min(self.sink().claim(SHARE).offsets.values())


def creates(first: int, count: int) -> list[Delivered]:
    return [change(n, "c", n, f"v{n}") for n in range(first, first + count)]


def refused(target: Target, log: Sequence[Delivered], kind: type[WaxtapError]) -> WaxtapError:
    """The error that ends the delivery of a log."""
    with target.open() as writer, pytest.raises(kind) as caught:  # noqa: PT012 - either may find out
        target.write(writer, log)
        writer.flush()
    return caught.value


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


def test_an_answer_that_comes_too_late_is_asked_for_again(endpoint: Endpoint) -> None:
    replies = iter([Reply(after=30), OK])
    endpoint.decide = lambda _: next(replies, OK)
    target = Target(endpoint.receiver.url, timeout="300ms")
    with target.open() as writer:
        target.write(writer, [change(1, "c", 1, "a"), change(2, "u", 1, "b")])
        writer.flush()
    assert endpoint.values() == ["a", "a", "b"]


def test_an_answer_that_drips_without_end_is_given_up(endpoint: Endpoint) -> None:
    dripping = threading.Event()

    def decide(_: Request) -> Reply:
        if dripping.is_set():
            return OK
        dripping.set()
        return Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")

    endpoint.decide = decide
    target = Target(endpoint.receiver.url, timeout="300ms")
    with target.open() as writer, capture_logs() as logs:
        target.write(writer, creates(1, 1))
        writer.flush()
    assert endpoint.values() == ["v1", "v1"]
    assert [(e["event"], e.get("reason")) for e in logs] == [
        ("target_is_in_trouble", "no answer in time"),
        ("target_is_back", None),
    ]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("how", ["seconds", "date"])
def test_retry_after_silences_the_whole_sink(endpoint: Endpoint, status: int, how: str) -> None:
    asked = threading.Event()

    def decide(_: Request) -> Reply:
        if asked.is_set() or len(endpoint.came) < 3:
            return OK
        asked.set()
        if how == "seconds":
            return Reply(status, {"retry-after": "1"})
        dates = {"date": "Tue, 24 Nov 2026 12:00:00 GMT"}
        return Reply(status, {"retry-after": "Tue, 24 Nov 2026 12:00:01 GMT", **dates})

    endpoint.decide = decide
    target = Target(endpoint.receiver.url, parallelism=1)
    with target.open() as writer:
        target.write(writer, creates(1, 30))
        writer.flush()
    moments = [at for at, _ in endpoint.came]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps[2] > 0.99
    assert sorted(set(endpoint.values())) == sorted(f"v{n}" for n in range(1, 31))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(raw=b"", reset=True),
        Reply(raw=b"HTTP/1.1 20", reset=True),
        Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", reset=True),
        Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", close=True),
        Reply(raw=b"", close=True),
        Reply(raw=b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000),
    ],
    ids=["reset", "in the head", "in the body", "cut body", "closed", "no http", "endless head"],
)
def test_a_broken_answer_is_asked_for_again(endpoint: Endpoint, reply: Reply) -> None:
    replies = iter([OK, reply, reply, reply])
    endpoint.decide = lambda _: next(replies, OK)
    target = Target(endpoint.receiver.url, parallelism=1, timeout="2s")
    with target.open() as writer:
        target.write(writer, creates(1, 4))
        writer.flush()
    assert endpoint.values() == ["v1", "v2", "v2", "v2", "v2", "v3", "v4"]
    assert target.stored() == 4


def test_connections_closed_between_requests_are_no_trouble(endpoint: Endpoint) -> None:
    endpoint.decide = lambda _: Reply(close=True)
    target = Target(endpoint.receiver.url)
    with target.open() as writer, capture_logs() as logs:
        target.write(writer, creates(1, 40))
        writer.flush()
    assert len(set(endpoint.ids)) == 40
    assert logs == []


def test_huge_answers_are_not_read(endpoint: Endpoint) -> None:
    endpoint.decide = lambda _: Reply(200, body=b"x" * 5_000_000)
    target = Target(endpoint.receiver.url, parallelism=1)
    with target.open() as writer:
        target.write(writer, creates(1, 3))
        writer.flush()
    assert endpoint.values() == ["v1", "v2", "v3"]
    assert endpoint.receiver.accepted == 4  # one for the claim, and one for each answer


def test_a_small_answer_keeps_its_connection(endpoint: Endpoint) -> None:
    endpoint.decide = lambda _: Reply(200, body=b"thanks" * 100)
    target = Target(endpoint.receiver.url, parallelism=1)
    with target.open() as writer:
        target.write(writer, creates(1, 30))
        writer.flush()
    assert endpoint.receiver.accepted == 2


def test_gone_stops_the_sink_after_one_question_and_is_resumed_by_a_start(
    endpoint: Endpoint,
) -> None:
    endpoint.decide = lambda _: Reply(410)
    target = Target(endpoint.receiver.url, parallelism=8)
    for _ in range(2):
        with target.open() as writer:
            with pytest.raises(FatalError) as caught:  # noqa: PT012 - either call may find out
                target.write(writer, creates(1, 100))
                writer.flush()
            assert writer.stored == 0
        assert caught.value.code == "webhook.gone"
        assert "start the flow" in caught.value.cure
    assert len(endpoint.came) == 2
    assert target.stored() == 0
    endpoint.decide = lambda _: OK
    with target.open() as writer:
        target.write(writer, creates(1, 100))
        writer.flush()
    assert target.stored() == 100


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(endpoint: Endpoint, status: int) -> None:
    elsewhere = Endpoint()
    try:
        place = f"http://127.0.0.1:{elsewhere.receiver.port}"
        endpoint.decide = lambda _: Reply(status, {"location": f"{place}/x?s3cret-word"})
        target = Target(endpoint.receiver.url)
        caught = refused(target, creates(1, 5), ConfigError)
        assert caught.code == "webhook.redirected"
        assert place in str(caught)
        assert "s3cret-word" not in str(caught)
        assert elsewhere.came == []
        assert target.stored() == 0
    finally:
        elsewhere.receiver.close()


def test_refused_credentials_stop_the_sink(endpoint: Endpoint) -> None:
    endpoint.decide = lambda _: Reply(401)
    target = Target(endpoint.receiver.url, auth={"bearer": "s3cret-word"})
    caught = refused(target, creates(1, 5), ConfigError)
    assert caught.code == "webhook.unauthorized"
    assert "s3cret-word" not in str(caught)


@pytest.mark.parametrize("show", [False, True])
def test_a_refused_change_is_named(endpoint: Endpoint, show: bool) -> None:
    def decide(request: Request) -> Reply:
        return Reply(422, body=b"no\nv7 here") if b'"v7"' in request.body else OK

    endpoint.decide = decide
    target = Target(endpoint.receiver.url, show_answers=show)
    with target.open() as writer:
        with pytest.raises(PermanentError) as caught:  # noqa: PT012 - either call may find out
            target.write(writer, creates(1, 20))
            writer.flush()
        assert caught.value.sequence == 7
        assert writer.stored == 6
    assert caught.value.code == "webhook.refused"
    assert "db.items.c of sequence 7: the endpoint answers 422" in str(caught.value)
    assert ("no v7 here" in str(caught.value)) is show
    assert "s3cret-word" not in str(caught.value)
    assert target.stored() == 6


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


def test_a_name_that_turns_to_a_private_address_is_not_followed(endpoint: Endpoint) -> None:
    port = endpoint.receiver.port
    target = Target(f"http://hooks.example.com:{port}/")
    answers = iter([["127.0.0.1"], ["127.0.0.1"]])
    target.resolver = lambda _host, _port: next(answers, ["127.0.0.2", "::1", "169.254.169.254"])
    with target.open() as writer:
        target.write(writer, creates(1, 1))
        writer.flush()
        endpoint.receiver.cut()
        with pytest.raises(ConfigError) as caught:  # noqa: PT012 - either call may find out
            target.write(writer, creates(2, 1))
            writer.flush()
    assert caught.value.code == "webhook.address"
    assert "169.254.169.254 is link-local" in str(caught.value)
    assert endpoint.values() == ["v1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_nothing_is_sent_to_an_address_that_is_not_allowed(
    endpoint: Endpoint, address: str
) -> None:
    target = Target(f"http://public.example.com:{endpoint.receiver.port}/", allow_private=False)
    target.resolver = lambda _host, _port: [address]
    with pytest.raises(ConfigError) as caught:
        target.sink().claim(SHARE)
    assert caught.value.code == "webhook.address"
    assert "allow_private" in caught.value.cure
    assert endpoint.receiver.accepted == 0


def test_of_several_addresses_the_allowed_one_that_answers_is_used(endpoint: Endpoint) -> None:
    target = Target(f"http://hooks.example.com:{endpoint.receiver.port}/")
    target.resolver = lambda _host, _port: ["10.9.9.9", "127.0.0.1"]
    with target.open() as writer:
        target.write(writer, creates(1, 1))
        writer.flush()
    assert endpoint.came[0][1].headers["host"] == f"hooks.example.com:{endpoint.receiver.port}"


def test_a_name_that_nobody_knows_is_retryable() -> None:
    with pytest.raises(RetryableError) as caught:
        Target("http://nobody.invalid/s3cret-word").sink().claim(SHARE)
    assert caught.value.code == "webhook.unreachable"
    assert "s3cret-word" not in str(caught.value)


def test_an_endpoint_that_is_down_is_told_of_once_and_waited_for(endpoint: Endpoint) -> None:
    target = Target(endpoint.receiver.url, parallelism=4)
    with target.open() as writer, capture_logs() as logs:
        target.write(writer, creates(1, 10))
        writer.flush()
        endpoint.receiver.kill()
        target.write(writer, creates(11, 40))
        flushing = Background(writer.flush)
        until(lambda: [e["event"] for e in logs] == ["target_is_in_trouble"])
        threading.Event().wait(1.0)  # several attempts
        assert flushing.running()
        assert len(logs) == 1
        endpoint.receiver.start()
        flushing.result()
    assert [e["event"] for e in logs] == ["target_is_in_trouble", "target_is_back"]
    assert logs[0]["sink"] == "warehouse"
    assert "refused" in logs[0]["reason"]
    assert target.stored() == 50
    assert sorted(set(endpoint.values())) == sorted(f"v{n}" for n in range(1, 51))


def test_what_waits_is_bounded_while_the_endpoint_is_down(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.stopping.GRACE_S", 0.5)
    target = Target(endpoint.receiver.url, parallelism=2)
    written = 0
    with target.open() as writer:
        endpoint.receiver.kill()

        def write() -> None:
            nonlocal written
            for batch in batches(target.claim, creates(1, 20_000), 1000):
                writer.write(batch)
                written = batch.upto

        writing = Background(write)
        until(lambda: written >= 4000)
        threading.Event().wait(0.5)
        assert written <= 5000
        target.stop.set()
        with pytest.raises(RetryableError) as caught:
            writing.result()
    assert caught.value.code == "webhook.interrupted"


def test_closing_breaks_what_is_under_way(endpoint: Endpoint) -> None:
    endpoint.decide = lambda _: Reply(after=600)
    target = Target(endpoint.receiver.url, timeout="600s", parallelism=4)
    before = threading.active_count()
    with target.open() as writer:
        target.write(writer, creates(1, 10))
        until(lambda: endpoint.came)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    until(lambda: threading.active_count() == before)


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


def test_tls_verifies_both_sides(certificate: Certificate, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    context.load_verify_locations(certificate.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    files = {
        "ca": str(certificate.certificate),
        "cert": str(certificate.certificate),
        "key": str(certificate.key),
    }
    endpoint = Endpoint(context)
    try:
        target = Target(endpoint.receiver.url, tls=files, allow_http=False, body="list")
        with target.open() as writer:
            target.write(writer, [change(n, "c", n, "x" * 5000) for n in range(1, 201)])
            writer.flush()
        assert len(endpoint.events()) == 200
        with pytest.raises(RetryableError) as caught:
            Target(endpoint.receiver.url).sink().claim(SHARE)
        assert "certificate verify failed" in str(caught.value)
        assert "s3cret-word" not in str(caught.value)
        with pytest.raises(ConfigError):
            Target(endpoint.receiver.url, tls={"ca": str(tmp_path / "no")}).sink().claim(SHARE)
    finally:
        endpoint.receiver.close()
