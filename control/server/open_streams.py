"""Bounds how many streams are open: each looks for news as long as somebody listens."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from typing_extensions import override

from control.pb.cdc.v1 import cdc_pb2
from control.server.callers import caller
from control.server.statuses import ApiError, abort
from control.server.wrapped import Wrapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from control.server.wrapped import Around, Context

_OF_ONE, _OF_ALL = 32, 128
_STREAMS = frozenset(
    f"/{service.full_name}/{method.name}"
    for service in cdc_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.server_streaming
) | {"/grpc.health.v1.Health/Watch"}


class OpenStreams(Wrapping):
    """An interceptor: refuses streams beyond a number. Who asks has been told before it.

    Args:
        of_one: So many a caller may have open at once.
        of_all: So many all of them.
    """

    def __init__(self, of_one: int = _OF_ONE, of_all: int = _OF_ALL) -> None:
        self._of_one, self._of_all = of_one, of_all
        self._open: Counter[str] = Counter()

    @override
    def around(self, method: str) -> Around | None:
        return self._counted if method in _STREAMS else None

    @asynccontextmanager
    async def _counted(self, _request: object, context: Context) -> AsyncIterator[None]:
        who = caller.get().name
        full = ""
        if self._open[who] >= self._of_one:
            full = f"{who} has {self._of_one} watches and tails open already"
        elif self._open.total() >= self._of_all:
            full = f"{self._of_all} watches and tails are open already"
        if full:
            await abort(
                context,
                ApiError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "control.too_many_streams",
                    full,
                    cure="end some of them; one watch without names tells of every flow",
                    retry=True,
                ),
            )
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]
