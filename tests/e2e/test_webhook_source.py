"""Requests into a source's stream, while what takes them, reads them and stores them is killed."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Self

import pytest
import yaml

from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stored import parse_headers
from control.servers.ports import free_port
from control.servers.spawn import spawn
from tests.e2e.flows import SupervisedFlow
from tests.e2e.items import stop_cleanly, wait_for
from tests.integration.streams import stored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers

_SENDERS = 6
_INGEST = [sys.executable, "-c", "from control.cli.app import main; main()", "ingest"]


class Senders:
    """Each sends its requests one after the other, each again and again until it is taken."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.acknowledged: list[tuple[int, int]] = []
        self.refused: Counter[str] = Counter()
        self._ports = ports
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=[n]) for n in range(_SENDERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def further(self, before: int) -> bool:
        return len(self.acknowledged) >= before + 200

    def _send(self, sender: int) -> None:
        number = tries = 0
        while not self._over.is_set():
            number += 1
            body = json.dumps({"id": f"{sender}-{number}", "sender": sender, "number": number})
            while not self._taken(self._ports[tries % len(self._ports)], body, sender, number):
                tries += 1
                self._over.wait(0.02)

    def _taken(self, port: int, body: str, sender: int, number: int) -> bool:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=8)) as connection:
                connection.request("POST", "/hooks", body, {"x-id": f"{sender}-{number}"})
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            self.refused[type(error).__name__] += 1
            return False
        if status == 202:
            self.acknowledged.append((sender, number))
            return True
        assert status == 503
        self.refused["503"] += 1
        return False


class Endpoints:
    """`waxtap ingest` as processes of their own, one a port."""

    def __init__(self, deployment: Deployment, ports: Sequence[int]) -> None:
        self._deployment, self._ports = deployment, ports
        self._processes = {port: self._start(port) for port in ports}

    def kill(self, port: int) -> None:
        self._processes[port].kill()
        self._processes[port].wait()
        self._processes[port] = self._start(port)

    def stop(self) -> list[int]:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        return [process.wait(30) for process in self._processes.values()]

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        configure(self._deployment, port, serve=False)
        configuration = self._deployment.folder / f"ingest-{port}.yaml"
        configuration.write_text(self._deployment.configuration.read_text())
        return spawn(
            [*_INGEST, "--source", "hooks", "--config", str(configuration)],
            log=self._deployment.folder / f"ingest-{port}.log",
            death_signal=signal.SIGKILL,
            environment=self._deployment.environment(""),
            folder=self._deployment.folder,
        )


def configure(deployment: Deployment, port: int, *, serve: bool) -> None:
    """Put the source `hooks` into the configuration."""
    source: dict[str, object] = {
        "type": "webhook",
        "listen": f"127.0.0.1:{port}",
        "path": "/hooks",
        "verify": "none",
        "serve": serve,
        "dedupe": {"header": "x-id", "window": "5m"},
    }
    deployment.more = {"sources": {"hooks": source}}
    deployment.write_configuration()
    assert yaml.safe_load(deployment.configuration.read_text())["sources"]["hooks"] == source


def captured(deployment: Deployment) -> list[tuple[int, int]]:
    """Sender and number of each change in the source's stream, in its order."""
    found = []
    for message in stored(NatsSpec(url=(deployment.nats.url,)), "CDC_hooks"):
        if parse_headers(message.hdrs) is not None:
            row = json.loads(message.data)["after"]
            found.append((row["sender"], row["number"]))
    return found


def complete(deployment: Deployment, senders: Senders) -> bool:
    return len(captured(deployment)) >= len(senders.acknowledged)


def check(deployment: Deployment, senders: Senders) -> None:
    """Every acknowledged request is in the stream once, and in its sender's order."""
    wait_for(partial(complete, deployment, senders), "every change", 30)
    found = captured(deployment)
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(senders.acknowledged)
    for sender in range(_SENDERS):
        own = [number for who, number in found if who == sender]
        assert own == sorted(own)


def test_a_flow_that_listens_loses_and_repeats_nothing_while_it_and_nats_are_killed(
    deployment: Deployment,
) -> None:
    port = free_port()
    configure(deployment, port, serve=True)
    with SupervisedFlow(deployment, "capture/hooks") as capture:
        with Senders([port]) as senders:
            for action in ("kill", "nats", "wipe", "terminate", "kill"):
                wait_for(partial(senders.further, len(senders.acknowledged)), "requests")
                if action == "nats":
                    deployment.nats.kill()
                    deployment.nats.start()
                elif action == "terminate":
                    assert capture.terminate() == [0], capture.last_words()
                else:
                    capture.kill(wipe=action == "wipe")
            wait_for(partial(senders.further, len(senders.acknowledged)), "requests")
        assert senders.refused
        check(deployment, senders)
        stop_cleanly(capture)


def test_endpoints_beside_the_flow_lose_and_repeat_nothing_while_all_of_it_is_killed(
    deployment: Deployment,
) -> None:
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        endpoints = Endpoints(deployment, ports)
        stack.callback(endpoints.close)
        capture = stack.enter_context(SupervisedFlow(deployment, "capture/hooks"))
        with Senders(ports) as senders:
            for action in ("endpoint", "flow", "nats", "both", "supplant"):
                wait_for(partial(senders.further, len(senders.acknowledged)), "requests")
                if action in ("endpoint", "both"):
                    endpoints.kill(ports[len(senders.acknowledged) % 2])
                if action in ("flow", "both"):
                    capture.kill()
                if action == "nats":
                    deployment.nats.kill()
                    deployment.nats.start()
                if action == "supplant":
                    capture.supplant()
            wait_for(partial(senders.further, len(senders.acknowledged)), "requests")
        check(deployment, senders)
        assert endpoints.stop() == [0, 0]
        assert not capture.unasked
