"""The webhook source against a real server: what becomes of requests, and what is refused."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from tests.integration.streams import until
from tests.integration.webhook_site import TOKEN, Site, exchange, send

if TYPE_CHECKING:
    from control.servers.nats import NatsServer
    from tests.servers.certificate import Certificate

pytestmark = pytest.mark.servers


def test_a_request_is_in_the_inbox_before_it_is_answered(site: Site) -> None:
    endpoint = site.serve()
    for number in range(3):
        status, _, body = send(endpoint.port, b'{"id":%d}' % number)
        assert (status, body) == (202, b"")
        assert len(site.stored()) == number + 1
    assert send(endpoint.port, b"", path="/health", method="GET")[0] == 200
    assert [change.key for change in site.changes(3)] == ['{"id":0}', '{"id":1}', '{"id":2}']


def test_what_is_refused_leaves_nothing_behind(nats_server: NatsServer) -> None:
    site = Site(
        nats_server, content_types=["application/json"], dedupe={"header": "x-id"}, max_body=2048
    )
    good = {"content-type": "application/json", "x-id": "1"}
    cases: list[tuple[int, dict[str, object]]] = [
        (401, {"headers": good | {"authorization": "Bearer wrong"}}),
        (401, {"headers": good | {"authorization": ""}}),
        (404, {"headers": good, "path": "/hook"}),
        (405, {"headers": good, "method": "PUT"}),
        (413, {"headers": good, "body": b'"' + b"x" * 3000 + b'"'}),
        (415, {"headers": good | {"content-type": "text/plain"}}),
        (400, {"headers": {"content-type": "application/json"}}),
        (400, {"headers": good, "body": b"{not json"}),
        (400, {"headers": good, "body": b'{"name":"no key"}'}),
        (431, {"headers": good | {"x-id": "x" * 2000}}),
    ]
    try:
        endpoint = site.serve()
        for status, request in cases:
            found, _, body = send(endpoint.port, **request)  # type: ignore[arg-type] # of `cases`
            assert found == status, (request, body)
            assert b"Traceback" not in body
            assert b"nats" not in body.lower()
        assert site.stored() == []
        assert send(endpoint.port, headers=good)[0] == 202
    finally:
        site.close()


def test_a_body_is_measured_while_it_comes_whatever_it_was_announced_as(site: Site) -> None:
    endpoint = site.serve(max_body=2048)
    head = b"POST /hooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer right\r\n"
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    answer = exchange(
        endpoint.port, head + b"transfer-encoding: chunked\r\n\r\n" + chunk * 20 + b"0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413")
    announced = head + b"content-length: 100000000\r\nexpect: 100-continue\r\n\r\n"
    assert exchange(endpoint.port, announced).startswith(b"HTTP/1.1 413")
    whole = head + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert exchange(endpoint.port, whole + b'8\r\n{"id":1}\r\n0\r\n\r\n').startswith(
        b"HTTP/1.1 202"
    )
    assert site.stored() == [{"id": 1}]


def test_bodies_that_are_being_read_at_once_are_bounded_though_nobody_has_vouched_for_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.webhook.endpoint._MOST_BYTES", 100_000)
    endpoint = site.serve()
    head = b"POST /hooks HTTP/1.1\r\nhost: x\r\ncontent-length: 65536\r\n\r\n"
    with ExitStack() as stack:
        address = ("127.0.0.1", endpoint.port)
        senders = [
            stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(4)
        ]
        for each in senders:
            each.sendall(head + b" " * 40_000)
        # None of them is whole: those that are over the bound are answered all the same.
        answered, _, _ = select.select(senders, [], [], 20)
        assert answered
        until(lambda: len(select.select(senders, [], [], 0)[0]) == 2)
        for each in select.select(senders, [], [], 0)[0]:
            answer = each.recv(65536).lower()
            assert answer.startswith(b"http/1.1 503")
            assert b"retry-after: 2" in answer
    until(lambda: send(endpoint.port, b'{"id":1}' + b" " * 90_000)[0] == 202)
    assert site.stored() == [{"id": 1}]


def test_what_an_expression_fails_on_is_answered_and_counted(nats_server: NatsServer) -> None:
    op = {"expression": "body.v > `1`", "values": {"true": "d"}}
    with closing(Site(nats_server, map={"op": op})) as site:
        port = site.serve().port
        for body in (b'{"id":1,"v":"a"}', b'{"id":1e99999999999999999999}', b'{"id":"\xff"}'):
            assert send(port, body)[0] == 400
        assert send(port, b'{"id":1,"v":2}')[0] == 202
        counted = {"source": site.name, "status": "400"}
        assert REGISTRY.get_sample_value("waxtap_requests_total", counted) == 3
        assert site.stored() == [{"id": 1, "v": 2}]


def test_headers_that_no_message_holds_beside_the_largest_body_are_refused(
    nats_server: NatsServer,
) -> None:
    names = [f"x-{number}" for number in range(16)]
    room = 16 * 1024
    largest = 1024 * 1024 - room
    site = Site(nats_server, headers=names, max_body=largest)
    with closing(site):
        port = site.serve().port
        body = b'{"id":1}'.ljust(largest)
        # Each byte of them takes six as JSON.
        status, _, told = send(port, body, dict.fromkeys(names, "ä" * 1000))
        assert (status, b"together" in told) == (431, True)
        assert site.stored() == []
        assert send(port, body, dict.fromkeys(names, "x" * 950))[0] == 202
        assert site.stored() == [{"id": 1}]


def test_slow_and_cut_requests_hold_nothing_up(site: Site) -> None:
    endpoint = site.serve(timeout="300ms")
    head = (
        b"POST /hooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer right\r\ncontent-length: 8\r\n"
    )
    began = time.monotonic()
    for slow in (b"", b"POST /hooks HT", head, head + b'\r\n{"id'):
        assert exchange(endpoint.port, slow).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 10
    endless = head + b"x-more: " + b"x" * 40_000
    assert exchange(endpoint.port, endless).startswith(b"HTTP/1.1 431")
    for cut in (head, head + b'\r\n{"id":'):
        with socket.create_connection(("127.0.0.1", endpoint.port)) as connection:
            connection.sendall(cut)
    assert exchange(endpoint.port, b"\x00\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert send(endpoint.port)[0] == 202
    assert site.stored() == [{"id": 1}]


def test_connections_beyond_the_limit_are_told_when_to_come_again(site: Site) -> None:
    endpoint = site.serve(max_connections=2)
    with ExitStack() as stack:
        held = [
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", endpoint.port)))
            for _ in range(2)
        ]
        for number, each in enumerate(held):
            each.request("POST", "/hooks", b'{"id":%d}' % number, TOKEN)
            answer = each.getresponse()
            answer.read()
            assert answer.status == 202
        status, told, body = send(endpoint.port, b'{"id":2}')
        assert (status, told["retry-after"], told["connection"]) == (503, "2", "close")
        assert b"connections" in body
        counted = {"source": site.name, "status": "503"}
        assert REGISTRY.get_sample_value("waxtap_requests_total", counted) == 1
        held[0].close()
        until(lambda: send(endpoint.port, b'{"id":3}')[0] == 202)
    assert site.stored() == [{"id": 0}, {"id": 1}, {"id": 3}]


def test_a_rate_is_kept_and_told(site: Site) -> None:
    endpoint = site.serve(rate={"requests": 2, "burst": "2s"})
    answers = [send(endpoint.port) for _ in range(8)]
    assert [status for status, _, _ in answers].count(202) in (4, 5)
    assert all(int(told["retry-after"]) >= 1 for status, told, _ in answers if status == 429)


def test_tls_is_served(site: Site, certificate: Certificate) -> None:
    files = {"cert": str(certificate.certificate), "key": str(certificate.key)}
    endpoint = site.serve(tls=files)
    context = ssl.create_default_context(cafile=certificate.certificate)
    with closing(
        http.client.HTTPSConnection("127.0.0.1", endpoint.port, timeout=30, context=context)
    ) as connection:
        connection.request("POST", "/hooks", b'{"id":1}', TOKEN)
        assert connection.getresponse().status == 202


def test_what_proves_who_sent_a_request_is_never_stored(site: Site) -> None:
    endpoint = site.serve(headers=["x-kind"])
    sent = {"x-kind": "order", "cookie": "c00kie", "content-type": "application/json"}
    assert send(endpoint.port, headers=sent)[0] == 202
    with connect(site.nats) as connection:
        message = api.message(connection, f"CDCIN_{site.name}", 1)
    assert message is not None
    assert b'{"content-type":"application/json","x-kind":"order"}' in message.hdrs
    assert b"right" not in message.hdrs
    assert b"c00kie" not in message.hdrs
