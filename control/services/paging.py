"""Pages of lists: bounded, in a stable order, each going on behind the last item of the one before.

A token names that item and the list; it stays good while items come and go.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, TypeVar

from control.explorer.pages import MOST_BYTES
from control.server.statuses import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.protobuf.message import Message

    _Item = TypeVar("_Item")
    _Message = TypeVar("_Message", bound=Message)

DEFAULT_SIZE, LARGEST_SIZE = 100, 1000
# What the items of a page take at most, and each of them beside its content.
_BESIDE = 8


def page_size(asked: int) -> int:
    """How many items a page has: 100 unless asked otherwise, 1000 at most.

    Raises:
        ApiError: It is negative.
    """
    if asked < 0:
        raise invalid("control.page_size", "it is negative", where="page_size")
    return min(asked or DEFAULT_SIZE, LARGEST_SIZE)


def token(kind: str, last: str) -> str:
    """Names the last item that was given of a list of this kind."""
    return urlsafe_b64encode(f"{kind} {last}".encode()).decode()


def read_token(kind: str, given: str) -> str:
    """The last item that was given; empty: none was.

    Raises:
        ApiError: It is no token of such a list.
    """
    if not given:
        return ""
    try:
        of, _, last = urlsafe_b64decode(given.encode()).decode().partition(" ")
    except ValueError:
        of, last = "", ""
    if of != kind or not last:
        raise invalid(
            "control.page_token",
            "it is not from an answer of this list",
            where="page_token",
            cure="give the next_page_token of the answer before, or none to begin anew",
        )
    return last


def page(
    items: Sequence[_Item], key: Callable[[_Item], str], kind: str, size: int, given: str
) -> tuple[list[_Item], str]:
    """The page behind a token, and the token of the next one; empty: it is the last.

    Args:
        items: In the order of their keys.
        key: Unique, not empty.
        kind: Of the list.
        size: As asked.
        given: The token as given.

    Raises:
        ApiError: Size or token are wrong.
    """
    size, last = page_size(size), read_token(kind, given)
    rest = [item for item in items if key(item) > last]
    more = token(kind, key(rest[size - 1])) if len(rest) > size else ""
    return rest[:size], more


def bounded(
    kind: str, items: Iterable[tuple[str, _Message]], following: str
) -> tuple[list[_Message], str]:
    """As many items of a page as an answer may hold, and the token of the next page.

    Args:
        kind: Of the list.
        items: Each with its key; taken one by one.
        following: The token of the next page, if all of them fit.
    """
    found: list[_Message] = []
    size, last = 0, ""
    for name, item in items:
        size += item.ByteSize() + _BESIDE
        if found and size > MOST_BYTES:
            return found, token(kind, last)
        found.append(item)
        last = name
    return found, following
