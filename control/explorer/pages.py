"""Orders and pages of messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

if TYPE_CHECKING:
    from control.explorer.messages import Message
    from control.explorer.page_tokens import Token

# What the messages of a page take at most, of the 16 MiB that an answer may have.
MOST_BYTES = 8 * 1024 * 1024
# What a message takes beside its payload and its key.
_BESIDE = 1024


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
        place: Where it goes on.
        total: How many messages match; -1: not counted.
        scanned: How many were looked at.
        is_end: Whether nothing follows.
        incomplete: Whether it ended before it was full and before the end.
    """

    messages: list[Message]
    place: Token
    total: int
    scanned: int
    is_end: bool
    incomplete: bool

    def cut(self, count: int) -> Page:
        """Only the first messages of it: it goes on behind them."""
        if count >= len(self.messages):
            return self
        places = dict(self.place.places)
        for message in reversed(self.messages[count:]):
            places[message.stream] = replace(places[message.stream], sequence=message.sequence)
        place = replace(self.place, places=places, skip=0)
        return self._replace(
            messages=self.messages[:count], place=place, is_end=False, incomplete=True
        )


class Filling:
    """Takes messages until a page has as many, or as many bytes, as an answer may hold.

    Args:
        limit: How many messages at most.
        preview: How many bytes of a payload are shown at most.
    """

    def __init__(self, limit: int, preview: int) -> None:
        self.messages: list[Message] = []
        self._limit, self._preview, self._bytes = limit, preview, 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many messages as were asked for."""
        return len(self.messages) >= self._limit

    def take(self, message: Message) -> bool:
        """Whether a message fits; the first one always does."""
        size = min(message.size, self._preview) + len(message.key) + _BESIDE
        if self.messages and (self.is_full or self._bytes + size > MOST_BYTES):
            return False
        self._bytes += size
        self.messages.append(message)
        return True


def piece(preview: int) -> int:
    """How many messages may be read at once, so that they are not more than a page or two."""
    return max(MOST_BYTES // (preview + _BESIDE), 1)
