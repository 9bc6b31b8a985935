"""Interceptors that put something around methods, whatever kind of method it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, cast

import grpc
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Any, TypeAlias

    Context: TypeAlias = grpc.aio.ServicerContext[object, object]
    Around: TypeAlias = Callable[[object, Context], AbstractAsyncContextManager[None]]
    _Handler = grpc.RpcMethodHandler[Any, Any]


class Wrapping(grpc.aio.ServerInterceptor, ABC):
    """An interceptor whose subclass says what each call runs inside."""

    @abstractmethod
    def around(self, method: str) -> Around | None:
        """What the calls of a method (`/cdc.v1.FlowService/GetFlow`) run inside; None: nothing."""

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        around = self.around(handler_call_details.method)
        return handler if handler is None or around is None else _wrapped(handler, around)


def _wrapped(handler: _Handler, around: Around) -> _Handler:
    """A handler whose every call runs inside `around(request, context)`.

    Where the caller streams, the request is None.
    """
    parts = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(_one(handler.unary_unary, around), **parts)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(_many(handler.unary_stream, around), **parts)
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler(_one(handler.stream_unary, around), **parts)
    return grpc.stream_stream_rpc_method_handler(_many(handler.stream_stream, around), **parts)


def _one(behavior: object, around: Around) -> Callable[[object, Context], Awaitable[object]]:
    answer = cast("Callable[[object, Context], Awaitable[object]]", behavior)

    async def call(request: object, context: Context) -> object:
        async with around(_message(request), context):
            return await answer(request, context)

    return call


def _many(
    behavior: object, around: Around
) -> Callable[[object, Context], AsyncIterator[object] | Awaitable[object]]:
    if iscoroutinefunction(behavior):  # it writes its answers itself, as the health service does
        return _one(behavior, around)
    answer = cast("Callable[[object, Context], AsyncIterator[object]]", behavior)

    async def call(request: object, context: Context) -> AsyncIterator[object]:
        async with around(_message(request), context):
            async for each in answer(request, context):
                yield each

    return call


def _message(request: object) -> object:
    return request if hasattr(request, "DESCRIPTOR") else None
