"""The webhook source against a real server: its inbox, whatever happens to that."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.errors import GapError
from connectors.jetstream.inbox import JetStreamInbox
from tests.integration.streams import until
from tests.integration.webhook_site import Site, grows, read_chunks, send

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint
    from control.servers.nats import NatsServer
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers


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


def test_another_inbox_is_read_only_once_the_owner_says_so(site: Site) -> None:
    endpoint = site.serve()
    send(endpoint.port, b'{"id":1}')
    with closing(site.source().open(None)) as reader:
        old = read_chunks(reader, 2)[-1]
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
        last = read_chunks(reader, 2)[-1]
        reader.confirm(last.checkpoint)
        again = site.serve()  # it has not seen the request
        server.kill()
        server.start()
        until(lambda: send(again.port, b'{"id":1}', {"x-id": "one"})[0] == 202)
        assert send(again.port, b'{"id":2}', {"x-id": "two"})[0] == 202
        assert site.stored() == [{"id": 1}, {"id": 2}]
        (found,) = read_chunks(reader, 1)
    assert [change.key for change in found.changes] == ['{"id":2}']
    site.close()
