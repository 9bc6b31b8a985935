"""The webhook source's endpoint and inbox: real requests, a real server, and what goes wrong."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from connectors.errors import ConfigError, GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.inbox import JetStreamInbox
from connectors.jetstream.spec import NatsSpec
from connectors.webhook.source import WebhookSource
from connectors.webhook.source_spec import SourceSpec
from control.servers.ports import free_port
from tests.contract.context import MemoryState, source_context
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sized

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint
    from connectors.webhook.endpoint import Endpoint
    from control.servers.nats import NatsServer
    from tests.servers.certificate import Certificate
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

TOKEN = {"authorization": "Bearer right"}


class Site:
    """A source of its own on a server, and its endpoints."""

    def __init__(self, server: NatsServer, **settings: object) -> None:
        self.name = f"w{uuid4().hex[:8]}"
        self.nats = NatsSpec(url=(server.url,))
        self.state = MemoryState()
        self._settings = settings
        self._stack = ExitStack()

    def source(self, *accept: str, **settings: object) -> WebhookSource:
        given: dict[str, object] = {
            "type": "webhook",
            "listen": "127.0.0.1:0",
            "path": "/hooks",
            "serve": False,
            "verify": {"bearer": ["right"]},
        }
        spec = SourceSpec.model_validate(given | self._settings | settings)
        inbox = JetStreamInbox(self.nats, self.name)
        return WebhookSource(self.name, spec, accept, source_context(state=self.state, inbox=inbox))

    def serve(self, **settings: object) -> Endpoint:
        endpoint = self.source(**settings).serve()
        self._stack.callback(endpoint.close)
        return endpoint

    def stored(self) -> list[dict[str, object]]:
        """The bodies in the inbox, in order."""
        found = []
        stream = f"CDCIN_{self.name}"
        with connect(self.nats) as connection:
            info = api.stream_info(connection, stream)
            assert info is not None
            for sequence in range(max(info.state.first_seq, 1), info.state.last_seq + 1):
                message = api.message(connection, stream, sequence)
                assert message is not None
                found.append(json.loads(message.data))
        return found

    def changes(self, count: int, resume: Checkpoint | None = None) -> list[Change]:
        found: list[Change] = []

        def enough() -> bool:
            if (chunk := reader.read()) is not None:
                found.extend(chunk.changes)
            return len(found) >= count

        with closing(self.source().open(resume)) as reader:
            until(enough)
            assert not reader.read()
        return found

    def close(self) -> None:
        self._stack.close()
        JetStreamInbox(self.nats, self.name).remove()


@pytest.fixture
def site(nats_server: NatsServer) -> Iterator[Site]:
    made = Site(nats_server)
    yield made
    made.close()


def send(
    port: int,
    body: bytes = b'{"id":1}',
    headers: dict[str, str] | None = None,
    path: str = "/hooks",
    method: str = "POST",
) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, body, TOKEN | (headers or {}))
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read()


def grows(found: Sized, by: int = 1) -> None:
    """Return once there is so much more."""
    before = len(found)
    until(lambda: len(found) >= before + by)


def exchange(port: int, data: bytes, wait: float = 20.0) -> bytes:
    """Send raw bytes, and return everything until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


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


def test_a_rate_is_kept_and_told(site: Site) -> None:
    endpoint = site.serve(rate={"requests": 2, "burst": "2s"})
    answers = [send(endpoint.port) for _ in range(8)]
    assert [status for status, _, _ in answers].count(202) in (4, 5)
    assert all(int(told["retry-after"]) >= 1 for status, told, _ in answers if status == 429)


def test_repetitions_are_stored_once_whatever_takes_them(nats_server: NatsServer) -> None:
    site = Site(nats_server, dedupe={"header": "x-id", "window": "1m"})
    try:
        ports = [site.serve().port for _ in range(3)]
        ids = [number % 150 for number in range(900)]

        def one(place: int) -> int:
            number = ids[place]
            headers = {"x-id": f"é{number}"}
            return send(ports[place % 3], b'{"id":%d}' % number, headers)[0]

        with ThreadPoolExecutor(24) as pool:
            assert set(pool.map(one, range(len(ids)))) == {202}
        stored = [row["id"] for row in site.stored()]
        assert sorted(map(str, stored)) == sorted(map(str, range(150)))
        fresh = site.serve()  # as after a restart: it remembers nothing itself
        assert send(fresh.port, b'{"id":3}', {"x-id": "é3"})[0] == 202
        assert len(site.stored()) == 150
        assert len(site.changes(150)) == 150
    finally:
        site.close()


def test_while_nats_is_away_or_frozen_the_answer_is_503_and_nothing_acknowledged_is_lost(
    nats_factory: NatsFactory,
) -> None:
    server = nats_factory()
    site = Site(server, dedupe={"header": "x-id"})
    port = site.serve().port
    acknowledged: set[int] = set()
    refusals: list[int] = []
    numbers = iter(range(1_000_000))
    lock, over = threading.Lock(), threading.Event()

    def sender() -> None:
        while not over.is_set():
            with lock:
                number = next(numbers)
            while True:  # as a sender does: the same request until it is taken
                status, told, _ = send(port, b'{"id":%d}' % number, {"x-id": str(number)})
                if status == 202:
                    acknowledged.add(number)
                    break
                assert status == 503
                assert told["retry-after"].isdigit()
                refusals.append(number)
                if over.wait(0.02):
                    return

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(sender) for _ in range(8)]
        until(lambda: len(acknowledged) > 100)
        for _ in range(2):
            server.kill()
            grows(refusals)
            assert send(port, b"", path="/health", method="GET")[0] == 503
            server.start()
            grows(acknowledged, 100)
        server.suspend()
        grows(refusals)
        server.resume()
        grows(acknowledged, 100)
        over.set()
        for one in running:
            one.result()
    stored = [row["id"] for row in site.stored()]
    assert len(stored) == len(set(map(str, stored)))
    assert acknowledged <= set(map(int, map(str, stored)))
    site.close()


def test_a_full_inbox_pushes_back_until_it_is_read(nats_server: NatsServer) -> None:
    site = Site(nats_server, max_backlog=100_000)
    try:
        endpoint = site.serve()
        body = json.dumps({"id": 1, "text": "x" * 20_000}).encode()
        statuses = [send(endpoint.port, body)[0] for _ in range(8)]
        assert statuses[:3] == [202] * 3
        assert statuses[-1] == 503
        taken = statuses.count(202)
        with closing(site.source().open(None)) as reader:
            found: list[Checkpoint] = []

            def read() -> bool:
                if (chunk := reader.read()) is not None:
                    found.append(chunk.checkpoint)
                return bool(found) and found[-1].state["sequence"] == str(taken)

            until(read)
            reader.confirm(found[-1])
            until(lambda: send(endpoint.port, body)[0] == 202)
    finally:
        site.close()


def test_accepted_requests_are_answered_before_an_endpoint_ends(nats_factory: NatsFactory) -> None:
    server = nats_factory()
    site = Site(server)
    endpoint = site.serve()
    send(endpoint.port)
    server.suspend()  # so that the requests are surely still on their way
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(send, endpoint.port, b'{"id":%d}' % n) for n in range(20)]
        requested = threading.Event()
        requested.wait(0.3)
        closing_ = pool.submit(endpoint.close)
        server.resume()
        closing_.result(30)
        assert [answer.result(30)[0] for answer in answers] == [202] * 20
    assert len(site.stored()) == 21
    with pytest.raises(ConnectionRefusedError):
        send(endpoint.port)
    site.close()


def test_a_port_in_use_and_a_body_that_does_not_fit_are_one_clear_error(site: Site) -> None:
    endpoint = site.serve()
    with pytest.raises(RetryableError) as taken:
        site.source(listen=f"127.0.0.1:{endpoint.port}").serve()
    assert taken.value.code == "webhook.port_in_use"
    assert str(endpoint.port) in str(taken.value)
    with pytest.raises(ConfigError) as large:
        site.source(max_body="2MiB").serve()
    assert large.value.code == "webhook.max_body"


def test_tls_is_served(site: Site, certificate: Certificate) -> None:
    files = {"cert": str(certificate.certificate), "key": str(certificate.key)}
    endpoint = site.serve(tls=files)
    context = ssl.create_default_context(cafile=certificate.certificate)
    with closing(
        http.client.HTTPSConnection("127.0.0.1", endpoint.port, timeout=30, context=context)
    ) as connection:
        connection.request("POST", "/hooks", b'{"id":1}', TOKEN)
        assert connection.getresponse().status == 202


def test_another_inbox_is_read_only_once_the_owner_says_so(site: Site) -> None:
    endpoint = site.serve()
    send(endpoint.port, b'{"id":1}')
    with closing(site.source().open(None)) as reader:
        chunks = []

        def begun() -> bool:
            if (chunk := reader.read()) is not None:
                chunks.append(chunk)
            return len(chunks) > 1

        until(begun)
    old = chunks[-1]
    JetStreamInbox(site.nats, site.name).remove()
    again = site.serve()
    for number in (2, 3):
        send(again.port, b'{"id":%d}' % number)
    with pytest.raises(GapError) as caught:
        site.source().open(old.checkpoint)
    token = caught.value.cure.split("'")[1]
    with closing(site.source(token).open(old.checkpoint)) as reader:
        found: list[Change] = []

        def read() -> bool:
            if (chunk := reader.read()) is not None:
                found.extend(chunk.changes)
            return len(found) == 2

        until(read)
    assert [change.key for change in found] == ['{"id":2}', '{"id":3}']
    assert all(change.position > old.changes[-1].position for change in found)


def test_the_inbox_that_vanishes_under_a_reader_is_a_gap(site: Site) -> None:
    endpoint = site.serve()
    send(endpoint.port)
    with closing(site.source().open(None)) as reader:
        until(lambda: (chunk := reader.read()) and chunk.changes)
        JetStreamInbox(site.nats, site.name).remove()
        assert send(endpoint.port)[0] == 503
        with pytest.raises(GapError, match="deleted"):
            until(reader.read)


def test_an_id_is_known_after_a_restart_of_the_server_though_its_request_was_captured(
    nats_factory: NatsFactory,
) -> None:
    server = nats_factory()
    site = Site(server, dedupe={"header": "x-id", "window": "1m"})
    endpoint = site.serve()
    send(endpoint.port, b'{"id":1}', {"x-id": "one"})
    with closing(site.source().open(None)) as reader:
        chunks = []

        def begun() -> bool:
            if (chunk := reader.read()) is not None:
                chunks.append(chunk)
            return len(chunks) > 1

        until(begun)
        reader.confirm(chunks[-1].checkpoint)
        again = site.serve()  # it has not seen the request
        server.kill()
        server.start()
        until(lambda: send(again.port, b'{"id":1}', {"x-id": "one"})[0] == 202)
        assert send(again.port, b'{"id":2}', {"x-id": "two"})[0] == 202
        assert site.stored() == [{"id": 1}, {"id": 2}]
        chunks = []
        until(lambda: begun() or bool(chunks))
    assert [change.key for change in chunks[0].changes] == ['{"id":2}']
    site.close()


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


def test_a_check_knows_its_own_endpoint_from_whatever_else_listens(
    site: Site, nats_server: NatsServer
) -> None:
    address = f"127.0.0.1:{free_port()}"
    source = site.source(serve=True, listen=address)
    with closing(source.open(None)):
        assert site.source(serve=True, listen=address).check() == []
        # Whatever else is to be changed with it.
        assert site.source(serve=True, listen=address, verify={"bearer": ["other"]}).check() == []
        other = Site(nats_server)
        (found,) = other.source(serve=True, listen=address).check()
        assert (found.code, found.where) == ("webhook.port_in_use", "listen")
        assert other.source(serve=False, listen=address).check() == []
        assert other.source().drop() == []
        with pytest.raises(RetryableError, match="cannot listen"):
            other.source(listen=address).serve()
        other.close()
    assert site.source(serve=True, listen=address).check() == []


def test_a_check_knows_its_own_endpoint_behind_tls(site: Site, certificate: Certificate) -> None:
    tls = {"cert": str(certificate.certificate), "key": str(certificate.key)}
    address = f"127.0.0.1:{free_port()}"
    with closing(site.source(serve=True, listen=address, tls=tls).open(None)):
        assert site.source(serve=True, listen=address, tls=tls).check() == []
        assert site.source(serve=True, listen=address).check() == []


def test_a_check_tells_of_everything_at_once(site: Site) -> None:
    tls = {"cert": "/no/such/file", "key": "/no/such/file"}
    source = site.source(
        serve=True, listen="192.0.2.1:80", allow_http=True, tls=tls, max_body="100MB"
    )
    found = {error.code for error in source.check()}
    assert found == {"webhook.max_body", "webhook.certificate", "webhook.listen"}


def test_a_check_tells_of_an_inbox_whose_name_or_subject_is_taken(site: Site) -> None:
    for stream, code in (
        (f"CDCIN_{site.name}", "jetstream.not_ours"),
        (f"theirs_{site.name}", "jetstream.subjects_taken"),
    ):
        taken = f"CDCIN.{site.name}" if stream.startswith("theirs") else site.name
        with connect(site.nats) as connection:
            api.create_stream(connection, {"name": stream, "subjects": [taken]})
            try:
                (found,) = site.source().check()
                assert found.code == code
                with pytest.raises(ConfigError):
                    site.source().open(None)
            finally:
                api.delete_stream(connection, stream)
