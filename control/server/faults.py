"""Turns what a method raises into the status of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc
import structlog
from typing_extensions import override

from connectors.errors import WaxtapError
from control.server.statuses import ApiError, abort, of_waxtap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TypeVar

    _Request = TypeVar("_Request")
    _Response = TypeVar("_Response")
    _Context = grpc.aio.ServicerContext[object, object]

log = structlog.get_logger()


class Faults(grpc.aio.ServerInterceptor):
    """An interceptor: methods raise `ApiError` or a `WaxtapError`, callers get a status.

    Anything else that is raised is our own fault: it is logged with its traceback, and the caller
    is told no more than that.
    """

    @override
    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None],
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return handler
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                _unary(method, handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _stream(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler


def _unary(method: str, behavior: object) -> Callable[[object, _Context], Awaitable[object]]:
    answer = cast("Callable[[object, _Context], Awaitable[object]]", behavior)

    async def call(request: object, context: _Context) -> object:
        try:
            return await answer(request, context)
        except Exception as error:
            await _told(method, context, error)
            raise

    return call


def _stream(method: str, behavior: object) -> Callable[[object, _Context], AsyncIterator[object]]:
    answer = cast("Callable[[object, _Context], AsyncIterator[object]]", behavior)

    async def call(request: object, context: _Context) -> AsyncIterator[object]:
        try:
            async for each in answer(request, context):
                yield each
        except Exception as error:
            await _told(method, context, error)
            raise

    return call


async def _told(method: str, context: _Context, error: Exception) -> None:
    """End the call with what was raised, unless it has ended already."""
    if isinstance(error, ApiError):
        await abort(context, error)
    if isinstance(error, WaxtapError):
        await abort(context, of_waxtap(error))
    if isinstance(error, grpc.aio.AbortError):
        return
    log.error("a method failed", method=method, exc_info=error)
    await abort(
        context,
        ApiError(
            grpc.StatusCode.INTERNAL, "control.internal", "internal error; see the service's log"
        ),
    )
