"""Looks into what is stored: one connection, and what is known beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.direct import DirectGets
from control.explorer import page_tokens, topics
from control.explorer.listing import Listing, Ordered, Page, whole
from control.explorer.messages import shown
from control.explorer.readers import readers

if TYPE_CHECKING:
    from connectors.jetstream.spec import NatsSpec
    from control.explorer.messages import Message
    from control.explorer.readers import Reader, Specs
    from control.explorer.topics import Held, Partition
    from control.explorer.wanted import Wanted


class Explorer:
    """Reads streams. Usable from any thread; every method blocks.

    Args:
        nats: Where the streams are.
        specs: Where sources and sinks are registered.

    Raises:
        RetryableError: NATS cannot be reached.
    """

    def __init__(self, nats: NatsSpec, specs: Specs) -> None:
        self._specs = specs
        self._connection = connect(nats)
        try:
            self._reads = DirectGets(self._connection)
        except BaseException:
            self._connection.release()
            raise

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self._reads.close()
        self._connection.release()

    def topics(self, pattern: str) -> dict[str, list[Held]]:
        """The topics that match a pattern. Raises as `topics.held`."""
        return topics.held(self._connection, pattern)

    def partitions(self, parts: list[Held]) -> list[Partition]:
        """What there is to tell of partitions. Raises as `topics.partitions`."""
        return topics.partitions(self._reads, parts)

    def readers(self) -> dict[str, Reader]:
        """The registered sinks."""
        return readers(self._specs.read())

    def messages(
        self,
        wanted: Wanted,
        order: Ordered,
        *,
        limit: int,
        preview: int,
        number: int = 1,
        token: str = "",
    ) -> tuple[Page, str]:
        """A page of messages, and the token of the next one; empty: there is none.

        Args:
            wanted: Which.
            order: In which order.
            limit: How many messages at most.
            preview: How many bytes of each payload are shown.
            number: Of the page, from 1, unless a token is given.
            token: Where to go on; empty: at the beginning.

        Raises:
            ValueError: The token is wrong; says so.
            ConfigError: The topic is not well-formed.
            RetryableError: NATS does not answer.
        """
        question = page_tokens.question_digest(wanted, order)
        place = page_tokens.decode(token, question) if token else None
        listing = Listing(self._connection, self._reads, wanted, order, preview)
        page = listing.page(question, limit, number, place)
        return page, page_tokens.encode(page.token) if page.token else ""

    def message(self, stream: str, sequence: int) -> Message | None:
        """A message with its headers and its whole payload; None: there is no such change.

        Raises:
            GapError: Its row is gone from the object store.
            RetryableError: NATS does not answer.
        """
        if api.stream_info(self._connection, stream) is None:
            return None
        found = self._reads.get(stream, {"seq": sequence, "batch": 1})
        # The server gives the next one where this one is gone.
        if not found or found[0].sequence != sequence or found[0].subject.count(".") < 3:
            return None
        return shown(stream, found[0], whole(self._connection, found[0]), None)
