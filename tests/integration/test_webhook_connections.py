"""The webhook sink against real sockets: whom it connects to, and what becomes of that."""

from __future__ import annotations

import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.errors import ConfigError, RetryableError
from tests.contract.sink_log import SHARE, batches, change, failed_attempts
from tests.integration.streams import Background, until
from tests.integration.webhook_endpoint import Endpoint, Target, creates
from tests.servers.receiver import Reply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.certificate import Certificate

pytestmark = pytest.mark.servers


def test_connections_closed_between_requests_are_no_trouble(endpoint: Endpoint) -> None:
    endpoint.decide = lambda _: Reply(close=True)
    target = Target(endpoint.receiver.url)
    with target.open() as writer, capture_logs() as logs:
        target.write(writer, creates(1, 40))
        writer.flush()
    assert len(set(endpoint.ids)) == 40
    assert logs == []


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
        before = failed_attempts()
        endpoint.receiver.kill()
        target.write(writer, creates(11, 40))
        flushing = Background(writer.flush)
        until(lambda: [e["event"] for e in logs] == ["target_is_in_trouble"])
        until(lambda: failed_attempts() > before + 4)
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
        threading.Event().wait(0.5)  # that nothing more is taken shows in time only
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
