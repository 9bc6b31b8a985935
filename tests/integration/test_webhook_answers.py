"""The webhook sink against real sockets: whatever an endpoint may answer."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.errors import ConfigError, FatalError, PermanentError
from tests.contract.sink_log import change
from tests.integration.webhook_endpoint import OK, Endpoint, Target, creates, refused
from tests.servers.receiver import Reply, Request

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.servers


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
