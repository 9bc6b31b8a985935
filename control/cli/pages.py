"""Lists of the control service, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Asks(Protocol):
    """A request for a page."""

    page_token: str


class _Answers(Protocol):
    """A page."""

    next_page_token: str


_Request = TypeVar("_Request", bound=_Asks)
_Page = TypeVar("_Page", bound=_Answers)


def pages(ask: Callable[[_Request], _Page], request: _Request) -> Iterator[_Page]:
    """Every page of a list, each asked for when it is wanted.

    Args:
        ask: The method.
        request: For the first page; it is changed for the others.
    """
    while True:
        page = ask(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
