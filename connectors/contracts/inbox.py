"""Where what is pushed to a source lies until its capture flow has read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta


class InboxMark(msgspec.Struct, frozen=True):
    """A place in an inbox.

    Attributes:
        created: When the inbox was made (RFC 3339): one that was made again is another one.
        sequence: Of the last message before the place; 0: none.
        stored: When that message was stored (RFC 3339); empty: there is none.
    """

    created: str
    sequence: int
    stored: str


class Arrived(NamedTuple):
    """A message as it lies in an inbox.

    Attributes:
        mark: The place behind it.
        headers: As they were given to `InboxWriter.store`.
        body: As it was given.
    """

    mark: InboxMark
    headers: dict[str, str]
    body: bytes


class InboxWriter(Protocol):
    """Stores messages; used inside one event loop. Any number of them may write to one inbox."""

    @property
    def max_body(self) -> int:
        """The largest body in bytes that can be stored."""
        ...

    @property
    def max_headers(self) -> int:
        """The most bytes that headers may take as a JSON object in ASCII without blanks."""
        ...

    @property
    def created(self) -> str:
        """When the inbox was made, as in `InboxMark`."""
        ...

    async def store(self, body: bytes, headers: Mapping[str, str], identity: str = "") -> bool:
        """Return once the message is stored for good. What comes meanwhile is stored together.

        Args:
            body: Up to `max_body` bytes.
            headers: Up to `max_headers` bytes.
            identity: Of messages with the same one only the first is stored, for as long as the
                inbox remembers them; empty: it is stored in any case.

        Returns:
            False where one of that identity was stored before.

        Raises:
            RetryableError: It may have been stored or not: nobody answered, or too much waits.
        """
        ...

    async def ready(self) -> bool:
        """Whether the inbox answers at this moment."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class InboxReader(Protocol):
    """Reads messages in the order in which they were stored. Used by one thread at a time."""

    def read(self) -> Sequence[Arrived]:
        """The next messages, none when there are none now. Does not wait.

        Raises:
            GapError: Messages are gone unread, or the inbox is another one.
        """
        ...

    def purge(self, sequence: int) -> None:
        """Let the inbox drop what lies before this sequence; may be without effect."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class InboxPreview(NamedTuple):
    """What opening an inbox would meet.

    Attributes:
        created: When it was made, as in `InboxMark`; empty: it is still to be made.
        max_body: The largest body in bytes that can be stored.
    """

    created: str
    max_body: int


class Inbox(Protocol):
    """A durable queue before a source, for what is pushed to it."""

    def preview(self) -> InboxPreview:
        """See whether it can be opened; makes and changes nothing.

        Raises:
            ConfigError: The server, or an inbox of that name, is of no use.
            RetryableError: It cannot be reached.
        """
        ...

    def writer(self, window: timedelta, max_bytes: int) -> InboxWriter:
        """Open the inbox for writing; it is made where it is missing.

        Args:
            window: For how long identities are remembered.
            max_bytes: How much it may hold; 0: any amount.

        Raises:
            ConfigError: The server refuses it.
            RetryableError: It cannot be reached.
        """
        ...

    def reader(
        self, behind: InboxMark | None, window: timedelta, max_bytes: int, accept: Collection[str]
    ) -> tuple[InboxReader, InboxMark, bool]:
        """Open it for reading behind a place, or from its beginning; made where it is missing.

        Returns:
            The reader, the place, and whether sequences begin anew: the owner has accepted that
            the inbox, or its end, is another one.

        Raises:
            ConfigError: The server refuses it.
            GapError: What follows the place is gone.
            RetryableError: It cannot be reached.
        """
        ...

    def remove(self) -> str:
        """Delete it with what it holds; returns its name, empty where there is none.

        Raises:
            RetryableError: It cannot be reached.
        """
        ...
