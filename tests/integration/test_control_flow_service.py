"""FlowService as its clients see it: a real gRPC server, real NATS, small processes as flows."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
import structlog

from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.cli.app import run
from control.pb.cdc.v1 import cdc_pb2 as pb
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.server.assembly import ControlServer
from control.server.authentication import Authentication
from control.server.callers import Caller, Role
from control.server.open_streams import OpenStreams
from control.server.tokens import Callers
from control.services import flow_looks
from control.services.calls import Repetitions, Workers
from control.services.flow_messages import flow_message
from control.services.flow_service import FlowService
from control.supervisor.bucket import BUCKET
from dataflows import reporting
from tests.integration.control_flows import TREE, MemorySpecSource, service, starts, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from control.servers.nats import NatsServer
    from control.supervisor.records import Desired, FlowStatus
    from control.supervisor.rendering import Rendered
    from control.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.servers
_FLOW = pb.Flow


@pytest.fixture
def nats(nats_server: NatsServer) -> Iterator[str]:
    """The shared server, without the bucket of earlier tests."""
    yield nats_server.url
    with connect(NatsSpec.model_validate({"url": nats_server.url})) as connection:
        connection.request(f"$JS.API.STREAM.DELETE.KV_{BUCKET}")


@asynccontextmanager
async def _served(
    supervisor: Supervisor, nats: str, *interceptors: grpc.aio.ServerInterceptor
) -> AsyncIterator[tuple[cdc_pb2_grpc.FlowServiceAsyncStub, int]]:
    workers, repetitions = Workers(), Repetitions(NatsSpec.model_validate({"url": nats}))
    service = FlowService(supervisor, workers, repetitions)
    server = ControlServer("127.0.0.1:0", [service.register], interceptors=interceptors)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield cdc_pb2_grpc.FlowServiceStub(channel), server.port
    finally:
        await server.stop(0.1)
        await asyncio.to_thread(workers.close)


def _status(arguments: list[str]) -> int:
    try:
        return run(arguments)
    except SystemExit as end:
        return int(end.code or 0)


async def _until(ask: Callable[[], Awaitable[pb.Flow]], state: pb.Flow.State.ValueType) -> pb.Flow:
    async with asyncio.timeout(20):
        while (flow := await ask()).state != state:
            await asyncio.sleep(0.05)
    return flow


async def _started(state: Path, times: int) -> None:
    """Wait until the capture has begun so many times: an end before that tells nothing."""
    async with asyncio.timeout(20):
        while len(starts(state, "capture/shop")) < times:
            await asyncio.sleep(0.05)


def test_flows_are_listed_watched_paused_resumed_and_restarted(nats: str, tmp_path: Path) -> None:
    specs = MemorySpecSource(TREE)

    async def client(supervisor: Supervisor) -> None:
        async with _served(supervisor, nats) as (stub, _):
            name = "flows/capture/shop"

            async def get() -> pb.Flow:
                return await stub.GetFlow(pb.GetFlowRequest(name=name))

            await _started(tmp_path, 1)
            running = await _until(get, _FLOW.STATE_RUNNING)
            assert running.owner == supervisor.service
            assert (running.generation, running.observed_generation) == (1, 1)
            assert running.pids
            assert running.HasField("start_time")

            first = await stub.ListFlows(pb.ListFlowsRequest(page_size=1))
            assert ([flow.name for flow in first.flows], first.total_size) == ([name], 2)
            second = await stub.ListFlows(
                pb.ListFlowsRequest(page_size=1, page_token=first.next_page_token)
            )
            assert [flow.name for flow in second.flows] == ["flows/deliver/warehouse"]
            assert second.next_page_token == ""

            watch = stub.WatchFlows(pb.WatchFlowsRequest(names=[name]))
            stream = aiter(watch)
            assert (await anext(stream)).state == _FLOW.STATE_RUNNING
            await stub.PauseFlow(pb.PauseFlowRequest(name=name))
            async with asyncio.timeout(20):
                while (await anext(stream)).state != _FLOW.STATE_PAUSED:
                    pass
            assert (await get()).pids == []
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.RestartFlow(pb.RestartFlowRequest(name=name))
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

            await stub.ResumeFlow(pb.ResumeFlowRequest(name=name))
            await _until(get, _FLOW.STATE_RUNNING)
            await _started(tmp_path, 2)
            once = uuid4()
            for _ in range(2):
                await stub.RestartFlow(pb.RestartFlowRequest(name=name, request_id=str(once)))
            await _started(tmp_path, 3)
            await _until(get, _FLOW.STATE_RUNNING)
            assert len(starts(tmp_path, "capture/shop")) == 3

            # One that is deleted comes once more, without a state.
            gone = aiter(stub.WatchFlows(pb.WatchFlowsRequest()))
            specs.edit(lambda tree: tree["sinks"].clear())
            async with asyncio.timeout(20):
                while (last := await anext(gone)).state != _FLOW.STATE_UNSPECIFIED:
                    pass
            assert last.name == "flows/deliver/warehouse"
            watch.cancel()

            for wrong, code in (
                ("flows/capture/nobody", grpc.StatusCode.NOT_FOUND),
                ("capture/shop", grpc.StatusCode.INVALID_ARGUMENT),
                ("flows/", grpc.StatusCode.INVALID_ARGUMENT),
                ("", grpc.StatusCode.INVALID_ARGUMENT),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.GetFlow(pb.GetFlowRequest(name=wrong))
                assert caught.value.code() is code

    with service(nats, tmp_path, specs) as supervisor:
        until(lambda: supervisor.ready, "ready")
        asyncio.run(client(supervisor))


def test_a_repeated_request_counts_once_whichever_service_it_reaches(
    nats: str, tmp_path: Path
) -> None:
    specs, name = MemorySpecSource(TREE), "flows/capture/shop"
    first, second, third, fourth = (str(uuid4()) for _ in range(4))

    def asked(of: Supervisor) -> Desired:
        return of.board.ask("capture/shop", lambda known: known)

    async def clients(one: Supervisor, two: Supervisor) -> None:
        async with _served(one, nats) as (here, _), _served(two, nats) as (there, _):
            await here.PauseFlow(pb.PauseFlowRequest(name=name, request_id=first))
            await here.ResumeFlow(pb.ResumeFlowRequest(name=name, request_id=second))
            # Sent again, it pauses nothing that has been resumed since.
            for stub in (here, there):
                await stub.PauseFlow(pb.PauseFlowRequest(name=name, request_id=first))
            assert not asked(two).paused
            await here.PauseFlow(pb.PauseFlowRequest(name=name))
            await there.ResumeFlow(pb.ResumeFlowRequest(name=name, request_id=second))
            assert asked(one).paused
            await here.ResumeFlow(pb.ResumeFlowRequest(name=name))
            for stub, identity in ((here, third), (there, fourth), (there, third), (here, fourth)):
                await stub.RestartFlow(pb.RestartFlowRequest(name=name, request_id=identity))
            assert asked(one).restarts == 2
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await there.ResumeFlow(pb.ResumeFlowRequest(name=name, request_id=third))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "request_id: it was used for another request" in str(refused.value.details())

    with service(nats, tmp_path / "1", specs) as one, service(nats, tmp_path / "2", specs) as two:
        until(lambda: one.ready and two.ready, "ready")
        asyncio.run(clients(one, two))


def _settled(supervisor: Supervisor) -> bool:
    flows = ("capture/shop", "deliver/warehouse")
    return supervisor.ready and all(supervisor.board.status(flow).observed for flow in flows)


def test_who_watches_costs_nothing_while_nothing_changes(
    nats: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(flow: str, status: FlowStatus, rendered: Rendered | None, revision: int) -> pb.Flow:
        made.append(flow)
        return flow_message(flow, status, rendered, revision)

    monkeypatch.setattr(flow_looks, "flow_message", counted)

    async def client(supervisor: Supervisor) -> None:
        async with _served(supervisor, nats) as (stub, _):
            watches = [aiter(stub.WatchFlows(pb.WatchFlowsRequest())) for _ in range(10)]
            for each in watches:
                assert (await anext(each)).name == "flows/capture/shop"
                assert (await anext(each)).name == "flows/deliver/warehouse"
            assert sorted(made) == ["capture/shop", "deliver/warehouse"]
            await stub.PauseFlow(pb.PauseFlowRequest(name="flows/capture/shop"))
            for each in watches:
                async with asyncio.timeout(20):
                    while (await anext(each)).state != _FLOW.STATE_PAUSED:
                        pass
            assert made.count("deliver/warehouse") == 1
            assert made.count("capture/shop") < 6

    with service(nats, tmp_path, MemorySpecSource(TREE)) as supervisor:
        until(partial(_settled, supervisor), "running")
        asyncio.run(client(supervisor))


def test_so_many_watches_are_open_at_once_of_a_caller_and_of_all(nats: str, tmp_path: Path) -> None:
    tokens = {name: secrets.token_hex(32) for name in ("ann", "ben", "cem")}
    known = Callers(
        tuple(
            (hashlib.sha256(token.encode()).digest(), Caller(name, Role.VIEWER))
            for name, token in tokens.items()
        ),
        {},
    )

    async def client(supervisor: Supervisor) -> None:
        limits = Authentication(known), OpenStreams(of_one=2, of_all=3)
        async with _served(supervisor, nats, *limits) as (stub, _):

            def watch(name: str) -> grpc.aio.UnaryStreamCall[pb.WatchFlowsRequest, pb.Flow]:
                metadata = (("authorization", f"Bearer {tokens[name]}"),)
                return stub.WatchFlows(pb.WatchFlowsRequest(), metadata=metadata)

            async def refused(name: str) -> str:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await anext(aiter(watch(name)))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                return str(caught.value.details())

            open_ = [watch(name) for name in ("ann", "ann", "ben")]
            for each in open_:
                assert (await anext(aiter(each))).name
            assert "ann has 2 watches and tails open already" in await refused("ann")
            assert "3 watches and tails are open already" in await refused("cem")
            # One that has ended makes room.
            open_[0].cancel()
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert (await anext(aiter(watch("cem")))).name
                        break
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.05)

    with service(nats, tmp_path, MemorySpecSource(TREE)) as supervisor:
        until(lambda: supervisor.ready, "ready")
        asyncio.run(client(supervisor))


def test_the_command_line_waits_for_what_it_asks(
    nats: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.excepthook", None)
    reporting.configure({})

    async def commands(supervisor: Supervisor) -> None:
        async with _served(supervisor, nats) as (_, port):
            server = ["--server", f"127.0.0.1:{port}"]

            async def command(*arguments: str) -> tuple[int, str]:
                capsys.readouterr()
                status = await asyncio.to_thread(_status, [*arguments, *server])
                return status, capsys.readouterr().out

            status, out = await command("pause", "capture/shop", "-o", "json")
            assert (status, json.loads(out)[0]["state"]) == (0, "STATE_PAUSED")
            status, out = await command("resume", "flows/capture/shop")
            assert status == 0
            assert "running" in out
            status, _ = await command("restart", "capture/shop", "deliver/warehouse")
            assert status == 0
            until(lambda: len(starts(tmp_path, "deliver/warehouse")) == 2, "started anew")
            status, out = await command("list", "flows", "-o", "yaml")
            assert (status, out.count("STATE_RUNNING")) == (0, 2)
            status, _ = await command("pause", "capture/nobody")
            assert status == 2
            status, _ = await command("pause")
            assert status == 2

    with service(nats, tmp_path, MemorySpecSource(TREE)) as supervisor:
        until(lambda: supervisor.ready, "ready")
        until(lambda: all(starts(tmp_path, f) for f in ("capture/shop", "deliver/warehouse")), "up")
        asyncio.run(commands(supervisor))
    structlog.reset_defaults()
