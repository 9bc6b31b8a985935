"""Requests that are sent again: real NATS, several services, one of them killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from connectors.errors import RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as pb
from control.server.statuses import ApiError
from control.services import calls
from control.services.calls import Repetitions
from control.services.request_bucket import BUCKET, REMEMBERED

if TYPE_CHECKING:
    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers

_ASKED = pb.ReplayDeadLettersRequest(all=True)
# A service that carries a request out for ever.
_HANGS = """
import sys, time
from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as pb
from control.services.calls import Repetitions

def work():
    print("begun", flush=True)
    time.sleep(1000)

Repetitions(NatsSpec(url=(sys.argv[1],))).once(
    sys.argv[2], pb.ReplayDeadLettersRequest(all=True), work
)
"""


@pytest.fixture
def nats(nats_server: NatsServer) -> NatsSpec:
    return NatsSpec(url=(nats_server.url,))


def _replayed(number: int) -> pb.ReplayDeadLettersResponse:
    return pb.ReplayDeadLettersResponse(replayed=number)


def test_a_repetition_gets_the_first_answer(nats: NatsSpec) -> None:
    one, other, identity = Repetitions(nats), Repetitions(nats), str(uuid4())
    assert one.once(identity, _ASKED, lambda: _replayed(7)).replayed == 7
    assert other.once(identity, _ASKED, lambda: _replayed(8)).replayed == 7
    assert other.once(identity.upper(), _ASKED, lambda: _replayed(8)).replayed == 7
    assert other.once("", _ASKED, lambda: _replayed(8)).replayed == 8
    for request in (pb.ReplayDeadLettersRequest(), pb.DiscardDeadLettersRequest(all=True)):
        with pytest.raises(ApiError) as caught:
            other.once(identity, request, lambda: _replayed(8))
        assert (caught.value.reason, caught.value.where) == ("control.request_id", "request_id")
    with connect(nats) as connection:
        info = api.stream_info(connection, f"KV_{BUCKET}")
    assert info is not None
    assert info.config["max_age"] == REMEMBERED.total_seconds() * 1e9


def test_what_failed_is_carried_out_again(nats: NatsSpec) -> None:
    one, other, identity = Repetitions(nats), Repetitions(nats), str(uuid4())

    def fails() -> pb.ReplayDeadLettersResponse:
        raise RetryableError("a.code", "no answer")

    for repetitions in (one, other):
        with pytest.raises(RetryableError):
            repetitions.once(identity, _ASKED, fails)
    assert other.once(identity, _ASKED, lambda: _replayed(7)).replayed == 7


def test_a_repetition_waits_for_an_answer_that_takes_long(
    nats: NatsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_BEAT_EVERY", 0.05)
    monkeypatch.setattr(calls, "SILENCE", 0.5)
    one, other, identity = Repetitions(nats), Repetitions(nats), str(uuid4())
    begun, go = threading.Event(), threading.Event()

    def slow() -> pb.ReplayDeadLettersResponse:
        begun.set()
        go.wait(20)
        return _replayed(7)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(one.once, identity, _ASKED, slow)
        assert begun.wait(20)
        with monkeypatch.context() as hasty:
            hasty.setattr(calls, "_PATIENCE", 1.0)
            with pytest.raises(ApiError) as caught:
                other.once(identity, _ASKED, lambda: _replayed(8))
        assert (caught.value.reason, caught.value.retry) == ("control.under_way", True)
        second = pool.submit(other.once, identity, _ASKED, lambda: _replayed(8))
        go.set()
        assert [first.result(20).replayed, second.result(20).replayed] == [7, 7]


def test_what_a_killed_service_has_begun_is_carried_out_by_another(
    nats: NatsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "SILENCE", 1.5)
    identity = str(uuid4())
    command = [sys.executable, "-c", _HANGS, nats.url[0], identity]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dies:
        assert dies.stdout is not None
        assert dies.stdout.readline() == "begun\n"
        dies.send_signal(signal.SIGKILL)
    assert Repetitions(nats).once(identity, _ASKED, lambda: _replayed(7)).replayed == 7
