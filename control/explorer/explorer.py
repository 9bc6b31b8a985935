"""Looks into what is stored: one connection, and what is known beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream.connection import connect
from connectors.jetstream.direct import DirectGets
from connectors.jetstream.stream import source_name
from control.explorer import page_tokens, topics
from control.explorer.deliveries import Deliveries
from control.explorer.key_index import KeyIndexes
from control.explorer.listing import Listing, Ordered, Page, whole
from control.explorer.messages import shown
from control.explorer.progress import Places, Sinks
from control.explorer.readers import UnknownSinkError, readers
from control.explorer.states import restriction
from control.explorer.streams import streams
from control.explorer.tailing import Tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.jetstream.spec import NatsSpec
    from control.explorer.deliveries import Delivery, Fate
    from control.explorer.messages import Message
    from control.explorer.readers import Reader, Specs
    from control.explorer.topics import Held, Partition
    from control.explorer.wanted import Wanted


class Shown(NamedTuple):
    """A page of messages.

    Attributes:
        page: The page.
        deliveries: For each message what became of it.
        token: Of the next page; empty: there is none.
    """

    page: Page
    deliveries: list[list[Delivery]]
    token: str


class Explorer:
    """Reads streams. Usable from any thread; every method blocks.

    Args:
        nats: Where the streams are.
        specs: Where sources and sinks are registered.
        environment: What references to secrets are resolved from.

    Raises:
        RetryableError: NATS cannot be reached.
    """

    def __init__(
        self, nats: NatsSpec, specs: Specs, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._specs = specs
        self._connection = connect(nats)
        try:
            self._reads = DirectGets(self._connection)
        except BaseException:
            self._connection.release()
            raise
        self._indexes = KeyIndexes(self._connection)
        self._places = Places(self._connection, Sinks(nats, specs, environment))
        self._deliveries = Deliveries(self._connection, self._reads, self._places)

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self._places.close()
        self._indexes.close()
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
        sink: str = "",
        fates: frozenset[Fate] = frozenset(),
    ) -> Shown:
        """A page of messages.

        Args:
            wanted: Which.
            order: In which order.
            limit: How many messages at most.
            preview: How many bytes of each payload are shown.
            number: Of the page, from 1, unless a token is given.
            token: Where to go on; empty: at the beginning.
            sink: Only what this one reads; empty: anything.
            fates: What may have become of them there; empty: anything.

        Raises:
            UnknownSinkError: There is no such sink.
            ValueError: The token is wrong; says so.
            ConfigError: The topic is not well-formed.
            RetryableError: NATS does not answer.
        """
        question = page_tokens.question_digest(wanted, order, sink, sorted(f.value for f in fates))
        place = page_tokens.decode(token, question) if token else None
        found = streams(self._connection, wanted.source)
        known = self.readers()
        left = None
        if sink and sink not in known:
            raise UnknownSinkError(sink)
        if sink:
            left = restriction(self._connection, self._places, known[sink], fates, found)
        listing = Listing(
            self._connection, self._reads, self._indexes, found, wanted, order, preview, left
        )
        page = listing.page(question, limit, number, place)
        deliveries = self._deliveries.of(page.messages, list(known.values()), found)
        return Shown(page, deliveries, page_tokens.encode(page.token) if page.token else "")

    def tail(self, wanted: Wanted, *, last: int, preview: int) -> tuple[list[Message], Tail]:
        """The last messages that are stored, and what gives those that follow.

        Args:
            wanted: Which.
            last: So many stored ones at most, as far as a look finds them in time.
            preview: How many bytes of each payload are shown.

        Raises:
            ConfigError: The topic is not well-formed.
            RetryableError: NATS does not answer.
        """
        found = streams(self._connection, wanted.source)
        newest = Ordered(by_time=True, descending=True)
        listing = Listing(
            self._connection, self._reads, self._indexes, found, wanted, newest, preview
        )
        stored = listing.page("", last).messages[::-1] if last else []
        tail = Tail(self._connection, self._reads, wanted, listing.looking(), found)
        return stored, tail

    def message(self, stream: str, sequence: int) -> tuple[Message, list[Delivery]] | None:
        """A message with its headers and its whole payload; None: there is no such change.

        Raises:
            GapError: Its row is gone from the object store.
            RetryableError: NATS does not answer.
        """
        of_source = streams(self._connection, source_name(stream))
        if stream not in [each.name for each in of_source]:
            return None
        found = self._reads.get(stream, {"seq": sequence, "batch": 1})
        # The server gives the next one where this one is gone.
        if not found or found[0].sequence != sequence or found[0].subject.count(".") < 3:
            return None
        message = shown(stream, found[0], whole(self._connection, found[0]), None)
        (deliveries,) = self._deliveries.of([message], list(self.readers().values()), of_source)
        return message, deliveries
