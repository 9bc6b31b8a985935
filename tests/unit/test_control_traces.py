"""The span of each call, on a real server of gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.server.assembly import ControlServer
from control.server.authentication import Authentication
from control.server.listening import Listening
from control.server.statuses import not_found
from control.server.traces import Traces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from opentelemetry.sdk.trace import ReadableSpan

_TRACE, _PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_TOKEN = "c0ffee" * 10
_CALLERS = 'callers: [{name: vera, role: viewer, token: "${VERA}"}]'
_BEARER = (("authorization", f"Bearer {_TOKEN}"),)


async def _get_flow(request: cdc_pb2.GetFlowRequest, _context: object) -> cdc_pb2.Flow:
    if request.name == "flows/broken":
        raise ValueError("s3cret")
    if request.name != "flows/capture/shop":
        raise not_found(request.name)
    return cdc_pb2.Flow(name=request.name)


async def _watch(_request: object, _context: object) -> AsyncIterator[cdc_pb2.Flow]:
    while True:
        yield cdc_pb2.Flow(name="flows/capture/shop")
        await asyncio.sleep(0.01)


def _register(server: grpc.aio.Server) -> None:
    flow = cdc_pb2.Flow.SerializeToString
    get = grpc.unary_unary_rpc_method_handler(
        _get_flow,
        request_deserializer=cdc_pb2.GetFlowRequest.FromString,
        response_serializer=flow,
    )
    watch = grpc.unary_stream_rpc_method_handler(
        _watch,
        request_deserializer=cdc_pb2.WatchFlowsRequest.FromString,
        response_serializer=flow,
    )
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"GetFlow": get, "WatchFlows": watch}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("cdc.v1.FlowService", methods),)
    )


def _traced(
    ask: Callable[[grpc.aio.Channel], Awaitable[None]], callers: Path | None = None
) -> list[ReadableSpan]:
    """The spans of what is asked of a server."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def run() -> None:
        known = Listening("127.0.0.1:0", callers=callers).read_callers({"VERA": _TOKEN})
        server = ControlServer(
            "127.0.0.1:0",
            [_register],
            interceptors=(Traces(provider.get_tracer("test")), Authentication(known)),
        )
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                await ask(channel)
        finally:
            await server.stop(5)

    asyncio.run(run())
    return list(exporter.get_finished_spans())


async def _get(channel: grpc.aio.Channel, name: str, *metadata: tuple[str, str]) -> None:
    stub = cdc_pb2_grpc.FlowServiceStub(channel)
    await stub.GetFlow(cdc_pb2.GetFlowRequest(name=name), metadata=metadata)


def test_a_call_is_one_span_in_the_trace_of_its_caller() -> None:
    parent = ("traceparent", f"00-{_TRACE}-{_PARENT}-01")
    (span,) = _traced(lambda channel: _get(channel, "flows/capture/shop", parent))
    assert (span.name, span.kind) == ("cdc.v1.FlowService/GetFlow", SpanKind.SERVER)
    assert span.status.status_code is StatusCode.UNSET
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == _TRACE
    assert f"{span.parent.span_id:016x}" == _PARENT
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "cdc.v1.FlowService",
        "rpc.method": "GetFlow",
        "rpc.grpc.status_code": 0,
        "enduser.id": "local",
    }


def test_a_trace_that_cannot_be_read_is_begun_anew() -> None:
    (span,) = _traced(
        lambda channel: _get(channel, "flows/capture/shop", ("traceparent", "00-nonsense"))
    )
    assert span.parent is None


@pytest.mark.parametrize(
    ("name", "code", "reason", "status"),
    [
        ("flows/none-k3y", grpc.StatusCode.NOT_FOUND, "CONTROL_NOT_FOUND", StatusCode.UNSET),
        ("flows/broken", grpc.StatusCode.INTERNAL, "CONTROL_INTERNAL", StatusCode.ERROR),
    ],
)
def test_a_span_tells_how_its_call_failed_and_nothing_that_was_asked(
    name: str, code: grpc.StatusCode, reason: str, status: StatusCode
) -> None:
    async def ask(channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _get(channel, name)
        assert caught.value.code() is code

    with capture_logs():
        (span,) = _traced(ask)
    attributes = span.attributes or {}
    assert (attributes["rpc.grpc.status_code"], attributes["error.type"]) == (
        code.value[0],
        reason,
    )
    assert span.status.status_code is status
    assert not any(word in span.to_json() for word in ("k3y", "broken", "s3cret"))


def test_who_asks_is_told_once_it_is_known(tmp_path: Path) -> None:
    callers = tmp_path / "callers.yaml"
    callers.write_text(_CALLERS)

    async def ask(channel: grpc.aio.Channel) -> None:
        await _get(channel, "flows/capture/shop", *_BEARER)
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await _get(channel, "flows/capture/shop", ("authorization", "Bearer s3cret"))

    with capture_logs():
        known, refused = _traced(ask, callers)
    assert (known.attributes or {})["enduser.id"] == "vera"
    told = refused.attributes or {}
    assert "enduser.id" not in told
    assert told["error.type"] == "CONTROL_UNKNOWN_CALLER"
    assert _TOKEN not in known.to_json()
    assert "s3cret" not in refused.to_json()


def test_a_stream_that_its_client_leaves_is_a_span_that_was_cancelled() -> None:
    async def ask(channel: grpc.aio.Channel) -> None:
        call = cdc_pb2_grpc.FlowServiceStub(channel).WatchFlows(cdc_pb2.WatchFlowsRequest())
        async for _ in call:
            break
        call.cancel()

    (span,) = _traced(ask)
    assert span.name == "cdc.v1.FlowService/WatchFlows"
    code = grpc.StatusCode.CANCELLED.value[0]
    assert (span.attributes or {})["rpc.grpc.status_code"] == code


def test_health_checks_are_not_traced() -> None:
    async def ask(channel: grpc.aio.Channel) -> None:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/grpc.health.v1.Health/Check"
        )
        health_pb2.HealthCheckResponse.FromString(await check(b""))

    assert not _traced(ask)
