"""The running service: everything put together, from the first start to the last stop."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import structlog

from control.explorer.explorer import Explorer
from control.metrics.exposition import FlowCollector, MetricsServer
from control.server.assembly import ControlServer
from control.server.audit import Audit
from control.server.authentication import Authentication
from control.server.embedded_nats import EmbeddedNats
from control.server.open_streams import OpenStreams
from control.server.options import nats_spec
from control.services.backfill_service import BackfillService
from control.services.calls import Repetitions, Workers
from control.services.config_service import ConfigService
from control.services.dead_letter_service import DeadLetterService
from control.services.flow_service import FlowService
from control.services.message_service import MessageService
from control.services.offset_service import OffsetService
from control.services.schema_service import SchemaService
from control.specs.store import SpecStore
from control.supervisor.group import Launcher
from control.supervisor.host import StateFolder
from control.supervisor.idle_sources import IdleSources
from control.supervisor.observer import FlowObserver
from control.supervisor.rendering import render
from control.supervisor.settings import Settings
from control.supervisor.supervisor import Supervisor
from dataflows import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import grpc

    from connectors.jetstream.spec import NatsSpec
    from control.server.options import ServeOptions

log = structlog.get_logger()

# Calls under way have that long; a tail has no end of its own.
_GRACE_S = 3.0
_LOOK_EVERY_S = 0.2
# Who pauses a flow does not wait for those who look into streams.
_FLOW_WORKERS = 4


async def serve(
    options: ServeOptions,
    environment: Mapping[str, str],
    started: Callable[[int], None] | None = None,
) -> None:
    """Run the service until SIGTERM or SIGINT.

    Args:
        options: What it is started with.
        environment: Where references are looked up, and what flows inherit.
        started: Told the port of the API once it answers.

    Raises:
        ConfigError: The options do not go together, files cannot be read, an address is in use.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        listening = options.listening
        credentials = listening.credentials()
        callers = listening.read_callers(environment)
        metrics_address = options.metrics_address
        state = StateFolder(options.state)
        stack.callback(state.close)
        if options.embedded:
            server_inside = EmbeddedNats(state.path)
            stack.push_async_callback(asyncio.to_thread, server_inside.stop)
            await asyncio.to_thread(server_inside.start)
            section: Mapping[str, object] = server_inside.settings
        else:
            section = options.nats(environment)
        nats = nats_spec(section, environment)
        store = stack.enter_context(SpecStore(nats))
        explorer = Explorer(nats, store, environment)
        stack.callback(explorer.close)
        observer = FlowObserver(state.flows, IdleSources(explorer.guard_source))
        supervisor = Supervisor(
            Settings(nats, Launcher(section, environment), state), store, observer
        )
        if metrics_address is not None:
            collector = FlowCollector(supervisor, nats, explorer.source_offsets)
            metrics = MetricsServer(collector, *metrics_address)
            stack.push_async_callback(asyncio.to_thread, metrics.stop)
        config = ConfigService(store, nats, environment, render, supervisor.stopped)
        stack.push_async_callback(asyncio.to_thread, config.close)
        repetitions, flow_workers = Repetitions(nats), Workers(_FLOW_WORKERS)
        stack.push_async_callback(asyncio.to_thread, flow_workers.close)
        server = ControlServer(
            options.listen,
            [
                config.register,
                FlowService(supervisor, flow_workers, repetitions).register,
                *_explorer(stack, explorer, store, supervisor, nats, repetitions),
            ],
            interceptors=(*_traces(environment), Authentication(callers), OpenStreams(), Audit()),
            credentials=credentials,
        )
        observer.start()
        stack.push_async_callback(asyncio.to_thread, observer.stop)
        supervisor.start()
        stack.push_async_callback(_stop_flows, supervisor, keep=options.keep_flows)
        await server.start()
        stack.push_async_callback(server.stop, _GRACE_S)
        disposing = asyncio.create_task(config.disposals.run())
        stack.push_async_callback(_cancel, disposing)
        log.info("control service answers", address=options.listen, port=server.port)
        if started is not None:
            started(server.port)
        await _watch(server, supervisor, stop)
        log.info("control service ends")


def _traces(environment: Mapping[str, str]) -> list[grpc.aio.ServerInterceptor]:
    """What traces calls, if a collector is named; nothing is imported for it otherwise."""
    tracer = telemetry.start(environment, "control")
    if tracer is None:
        return []
    from control.server.traces import Traces

    return [Traces(tracer)]


def _explorer(
    stack: AsyncExitStack,
    explorer: Explorer,
    store: SpecStore,
    supervisor: Supervisor,
    nats: NatsSpec,
    repetitions: Repetitions,
) -> list[Callable[[grpc.aio.Server], None]]:
    """What looks into streams; it is let go of when the stack is unwound."""
    workers = Workers()
    stack.callback(workers.close)

    def paused(flow: str) -> bool:
        return supervisor.board.paused(flow)

    return [
        MessageService(explorer, workers).register,
        OffsetService(explorer, paused, workers, repetitions).register,
        SchemaService(explorer, workers).register,
        DeadLetterService(nats, store, workers, repetitions).register,
        BackfillService(nats, store, workers, repetitions).register,
    ]


async def _watch(server: ControlServer, supervisor: Supervisor, stop: asyncio.Event) -> None:
    """Tell whether flows can run, until the service is to end."""
    told: bool | None = None
    while not stop.is_set():
        if supervisor.ready != told:
            told = supervisor.ready
            await server.ready(is_ready=told)
            log.info("flows can run" if told else "flows cannot run yet")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_EVERY_S)
    await server.ready(is_ready=False)


async def _stop_flows(supervisor: Supervisor, *, keep: bool) -> None:
    await asyncio.to_thread(supervisor.stop, keep_flows=keep)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
