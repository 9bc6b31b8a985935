"""A span for each call, which goes on with the trace of its caller."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from control.server.callers import caller
from control.server.roles import OPEN
from control.server.statuses import code_of
from control.server.wrapped import Wrapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.trace import Tracer

    from control.server.wrapped import Around, Context

_TRACE = frozenset({"traceparent", "tracestate"})
_DETAILS = "grpc-status-details-bin"
# What is the server's fault (OpenTelemetry, "Semantic conventions for gRPC", server spans).
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Traces(Wrapping):
    """An interceptor: makes spans. It stands before all others, so that refusals are told too.

    A span tells method, status, the reason of an error, and who asked; nothing of what a request or
    an answer holds. Health checks, of which there are many, have none.

    Args:
        tracer: What makes spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @override
    def around(self, method: str) -> Around | None:
        return None if method in OPEN else partial(self._traced, method.removeprefix("/"))

    @asynccontextmanager
    async def _traced(self, name: str, _request: object, context: Context) -> AsyncIterator[None]:
        service, _, method = name.rpartition("/")
        # It is not made the current one: a stream that its client leaves may end in another
        # context, where that could not be taken back.
        span = self._tracer.start_span(
            name,
            context=TraceContextTextMapPropagator().extract(_trace_of(context)),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        code = grpc.StatusCode.OK
        try:
            yield
        except BaseException:
            code = code_of(context)
            if reason := _reason(context):
                span.set_attribute("error.type", reason)
            if code in _FAULTS:
                span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            # Nobody, where the call was refused before it was known who asks.
            if (who := caller.get(None)) is not None:
                span.set_attribute("enduser.id", who.name)
            span.end()


def _trace_of(context: Context) -> dict[str, str]:
    """The caller's trace, as it is told in the metadata (W3C, Trace Context)."""
    return {
        name: value
        for name, value in context.invocation_metadata() or ()
        if name in _TRACE and isinstance(value, str)
    }


def _reason(context: Context) -> str:
    """The reason of the error that the caller is told, such as `CONTROL_NOT_FOUND`."""
    for name, value in context.trailing_metadata() or ():
        if name == _DETAILS and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                info = ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
