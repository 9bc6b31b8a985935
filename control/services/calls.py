"""How requests are carried out: where blocking work runs, and each of them once."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from google.protobuf.message import Message

from control.server.statuses import invalid

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REMEMBERED = 1000


class Workers:
    """Threads for work that blocks.

    Args:
        count: So much work is done at once; the rest waits.
    """

    def __init__(self, count: int = 8) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="waxtap-explorer")

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do it in a thread, and return what it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(work, *args, **kwargs))

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(cancel_futures=True)


class Repetitions:
    """Remembers what was answered, so that a request that is repeated is carried out once.

    It does so for this service and for as long as it runs, for the last 1000 requests that have an
    id. Usable from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: OrderedDict[str, tuple[bytes, Future[Message]]] = OrderedDict()

    def once(self, name: str, request: Message, work: Callable[[], _M]) -> _M:
        """Carry out a request, or return what was answered to it before.

        Args:
            name: Its `request_id`; empty: it is carried out in any case.
            request: As it was given.
            work: Carries it out. What it raises is not remembered.

        Raises:
            ApiError: The id is none, or that of another request.
        """
        if not name:
            return work()
        if not _UUID.fullmatch(name):
            raise invalid("control.request_id", "it is no UUID", where="request_id")
        content = request.SerializeToString(deterministic=True)
        with self._lock:
            known = self._done.get(name)
            if known is None:
                mine: Future[Message] = Future()
                self._done[name] = content, mine
                while len(self._done) > _REMEMBERED:
                    self._done.popitem(last=False)
        if known is not None:
            if known[0] != content:
                raise invalid(
                    "control.request_id", "another request had this id", where="request_id"
                )
            return cast("_M", known[1].result())
        try:
            answer = work()
        except BaseException as error:
            with self._lock:
                self._done.pop(name, None)
            mine.set_exception(error)
            raise
        mine.set_result(answer)
        return answer
