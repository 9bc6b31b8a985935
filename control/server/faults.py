"""Turns what a method raises into the status of its call."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog
from typing_extensions import override

from connectors.errors import WaxtapError
from control.server.statuses import ApiError, abort, of_waxtap
from control.server.wrapped import Wrapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from control.server.wrapped import Around, Context

log = structlog.get_logger()


class Faults(Wrapping):
    """An interceptor: methods raise `ApiError` or a `WaxtapError`, callers get a status.

    Anything else that is raised is our own fault: it is logged with its traceback, and the caller
    is told no more than that.
    """

    @override
    def around(self, method: str) -> Around | None:
        return partial(_telling, method)


@asynccontextmanager
async def _telling(method: str, _request: object, context: Context) -> AsyncIterator[None]:
    try:
        yield
    except Exception as error:
        await _told(method, context, error)
        raise


async def _told(method: str, context: Context, error: Exception) -> None:
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
