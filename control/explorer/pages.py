"""Orders and pages of messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from control.explorer.messages import Message
    from control.explorer.page_tokens import Token


@dataclass(frozen=True, slots=True)
class Ordered:
    """In which order messages are listed.

    Attributes:
        by_time: By the time of storing, over all streams; otherwise by sequence.
        descending: The latest first.
    """

    by_time: bool = False
    descending: bool = False


class Page(NamedTuple):
    """A part of a list.

    Attributes:
        messages: In order.
        token: Where it goes on; None: this is the end.
        total: How many messages match; -1: not counted.
        scanned: How many were looked at.
        incomplete: Whether the look ended before the page was full and before the end.
    """

    messages: list[Message]
    token: Token | None
    total: int
    scanned: int
    incomplete: bool
