"""What the services have in common: where blocking work runs, and how lists are asked for."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from control.explorer import page_tokens
from control.server.statuses import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_P = ParamSpec("_P")
_T = TypeVar("_T")


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


def page_of(
    items: Sequence[_T],
    size: int,
    token: str,
    *,
    question: str,
    default: int = 100,
    most: int = 1000,
) -> tuple[Sequence[_T], str]:
    """A page of a list that is at hand, and the next token; empty: there is none.

    Args:
        items: The whole list, in a stable order.
        size: As asked for; 0: `default`.
        token: As asked for.
        question: Digest of the rest of the request.
        default: Items of a page where none was said.
        most: More are not given.

    Raises:
        ApiError: Size or token are wrong.
    """
    count = page_size(size, default, most)
    begin = 0
    if token:
        try:
            begin = page_tokens.decode(token, question).skip
        except ValueError as error:
            raise invalid("control.page_token", str(error), where="page_token") from None
    end = begin + count
    more = end < len(items)
    following = page_tokens.encode(page_tokens.Token(question, {}, end)) if more else ""
    return items[begin:end], following


def page_size(size: int, default: int, most: int, field: str = "page_size") -> int:
    """How many items are wanted. Raises ApiError: fewer than none."""
    if size < 0:
        raise invalid("control.page_size", "must not be negative", where=field)
    return min(size or default, most)
