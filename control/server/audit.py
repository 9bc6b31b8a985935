"""The audit log: one line for each change that somebody asked for, whatever came of it.

It tells who asked from where, for what, and how it ended. Nothing of what the request held is in
it: names only.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog
from typing_extensions import override

from control.server.callers import caller
from control.server.roles import changes
from control.server.statuses import code_of
from control.server.wrapped import Wrapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from control.server.wrapped import Around, Context

log = structlog.get_logger("audit")

_KINDS = ("source", "sink", "pipeline", "topic")


class Audit(Wrapping):
    """An interceptor: writes down changes. It stands behind the one that tells who asks."""

    @override
    def around(self, method: str) -> Around | None:
        return partial(_written, method) if changes(method) else None


@asynccontextmanager
async def _written(method: str, request: object, context: Context) -> AsyncIterator[None]:
    outcome = grpc.StatusCode.UNKNOWN.name
    try:
        yield
        outcome = grpc.StatusCode.OK.name
    except BaseException:
        outcome = code_of(context).name
        raise
    finally:
        who = caller.get()
        log.info(
            "audit",
            caller=who.name,
            role=who.role.name.lower(),
            method=method.rpartition("/")[2],
            resource=resource_of(request),
            request_id=getattr(request, "request_id", ""),
            validate_only=getattr(request, "validate_only", False),
            outcome=outcome,
            peer=context.peer(),
        )


def resource_of(request: object) -> str:
    """What a request is about: the name of a resource, or of a revision."""
    for kind in _KINDS:
        identity = getattr(request, f"{kind}_id", "")
        if identity:
            return f"{kind}s/{identity}"
        given = getattr(request, kind, None)
        if isinstance(given, str) and given:
            return f"{kind}s/{given}"
        if name := getattr(given, "name", ""):
            return str(name)
    if name := getattr(request, "name", ""):
        return str(name)
    if parent := getattr(request, "parent", ""):
        return str(parent)
    if sink := getattr(getattr(request, "filter", None), "sink", ""):
        return f"sinks/{sink}"
    revision = getattr(request, "revision", 0)
    return f"revisions/{revision}" if revision else ""
