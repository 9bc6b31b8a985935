"""A control service in the test's process, and clients of it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import grpc

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.server.assembly import ControlServer
from control.server.audit import Audit
from control.server.authentication import Authentication
from control.server.listening import Listening
from control.server.open_streams import OpenStreams
from control.services.config_service import ConfigService
from control.specs.store import SpecStore
from control.supervisor.rendering import render

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from concurrent.futures import Future
    from types import TracebackType
    from typing import TypeVar

    from connectors.jetstream.spec import NatsSpec

    T = TypeVar("T")

_PATIENCE = 30.0


@dataclass
class Flows:
    """Stands for the supervisor: notes which flows had to stop, and when they have."""

    asked: list[str] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)

    async def stopped(self, flow: str, revision: int) -> None:
        assert revision
        self.asked.append(flow)
        while flow in self.runs:
            await asyncio.sleep(0.01)


class RunningControl:
    """A control service of its own, in a thread.

    Args:
        nats: Where its bucket is.
        environment: Where references are looked up.
        listening: Where it listens, and who may ask.
    """

    def __init__(
        self,
        nats: NatsSpec,
        environment: Mapping[str, str],
        listening: Listening | None = None,
    ) -> None:
        self._listening = listening or Listening("127.0.0.1:0")
        self.store = SpecStore(nats)
        self.flows = Flows()
        self._nats, self._environment = nats, environment
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.service, self._server = self.run(self._start())
        self.port = self._server.port
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.config = cdc_pb2_grpc.ConfigServiceStub(self.channel)

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run something in the service's loop."""
        return self.go(work).result(_PATIENCE)

    def go(self, work: Coroutine[object, object, T]) -> Future[T]:
        """Begin something in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.channel.close()
        self.run(self._server.stop(1))
        self.service.close()
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.store.close()

    async def _start(self) -> tuple[ConfigService, ControlServer]:
        service = ConfigService(
            self.store, self._nats, self._environment, render, self.flows.stopped
        )
        server = ControlServer(
            self._listening.address,
            [service.register],
            interceptors=(
                Authentication(self._listening.read_callers(self._environment)),
                OpenStreams(),
                Audit(),
            ),
            credentials=self._listening.credentials(),
        )
        await server.start()
        await server.ready(is_ready=True)
        return service, server


def empty_bucket(nats: NatsSpec) -> None:
    """Forget every configuration that earlier tests have stored."""
    with connect(nats) as connection:
        api.delete_stream(connection, "KV_CDC_CONTROL")
