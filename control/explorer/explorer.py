"""Looks into what is stored: one connection, and what is known beside it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream.schemas import SchemaStore
from connectors.jetstream.stream import source_name
from control.explorer import page_tokens, schemas, topics
from control.explorer.deliveries import told_in_full
from control.explorer.listing import Listing
from control.explorer.looking import whole
from control.explorer.messages import shown
from control.explorer.opened import connected
from control.explorer.pages import MOST_BYTES, Ordered, Page
from control.explorer.picking import picked
from control.explorer.progress import Sinks
from control.explorer.readers import UnknownSinkError, readers, sources
from control.explorer.resetting import NoStreamError, place, reset, unusable
from control.explorer.sink_offsets import offsets, parts
from control.explorer.states import restriction
from control.explorer.streams import streams
from control.explorer.tailing import Tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.contracts.changes import TableSchema
    from connectors.contracts.source import LogHealth
    from connectors.jetstream.direct import Raw
    from connectors.jetstream.shape_versions import TableVersions
    from connectors.jetstream.spec import NatsSpec
    from control.explorer.deliveries import Delivery, Fate
    from control.explorer.messages import Message
    from control.explorer.opened import Open
    from control.explorer.readers import Reader, Specs
    from control.explorer.resetting import Target
    from control.explorer.sink_offsets import Part, SinkOffset
    from control.explorer.source_offsets import SourceOffset
    from control.explorer.states import Restriction
    from control.explorer.streams import Stream
    from control.explorer.topics import Held, Partition
    from control.explorer.wanted import Wanted


class Shown(NamedTuple):
    """A page of messages.

    Attributes:
        page: The page.
        deliveries: For each message what became of it.
        following: The token of the next page; empty: there is none.
    """

    page: Page
    deliveries: list[list[Delivery]]
    following: str


class Explorer:
    """Reads streams. Usable from any thread; every method blocks.

    Args:
        nats: Where the streams are.
        specs: Where sources and sinks are registered.
        environment: What references to secrets are resolved from.

    It connects when it is asked for the first time.
    """

    def __init__(
        self, nats: NatsSpec, specs: Specs, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._nats, self._specs = nats, specs
        self._sinks = Sinks(nats, specs, environment)
        self._lock = threading.Lock()
        self._open: Open | None = None

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    @property
    def _opened(self) -> Open:
        """What there is once NATS was reached for the first time."""
        with self._lock:
            if self._open is None:
                self._open = connected(self._nats, self._sinks)
            return self._open

    def topics(self, pattern: str) -> dict[str, list[Held]]:
        """The topics that match a pattern. Raises as `topics.held`."""
        return topics.held(self._opened.connection, pattern)

    def partitions(self, parts: list[Held]) -> list[Partition]:
        """What there is to tell of partitions. Raises as `topics.partitions`."""
        return topics.partitions(self._opened.reads, parts)

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
        found = streams(self._opened.connection, wanted.source)
        known = self.readers()
        left = None
        if sink:
            (reader,) = self._chosen(sink)
            left = restriction(self._opened.letters, self._opened.places, reader, fates, found)
        listing = self._listing(found, wanted, order, preview, left)
        page = listing.page(question, limit, number, place)
        deliveries = self._opened.deliveries.of(page.messages, list(known.values()), found)
        page = page.cut(told_in_full(deliveries))
        following = "" if page.is_end else page_tokens.encode(page.place)
        return Shown(page, deliveries[: len(page.messages)], following)

    def tail(self, wanted: Wanted, *, last: int, preview: int) -> Tail:
        """Gives the last messages that are stored, and then those that follow.

        Args:
            wanted: Which.
            last: So many stored ones at most, as far as a look finds them in time.
            preview: How many bytes of each payload are shown.

        Raises:
            ConfigError: The topic is not well-formed.
            RetryableError: NATS does not answer.
        """
        opened = self._opened
        found = streams(opened.connection, wanted.source)
        newest = Ordered(by_time=True, descending=True)
        looking = self._listing(found, wanted, newest, preview).looking()
        # Only their places are kept: they are read again when they are given.
        places: dict[str, list[int]] = {}
        if last:
            page = self._listing(found, wanted, newest, 0).page("", last)
            for message in reversed(page.messages):
                places.setdefault(message.stream, []).append(message.sequence)
        stored = picked(opened.reads, places, looking, by_time=True, descending=False)
        given = (each.message for each in stored if each.message is not None)
        return Tail(opened.connection, opened.reads, wanted, looking, preview, found, given)

    def message(self, stream: str, sequence: int) -> tuple[Message, list[Delivery]] | None:
        """A message with its headers and up to 8 MiB of its payload; None: no such change.

        Raises:
            GapError: Its row is gone from the object store.
            RetryableError: NATS does not answer.
        """
        found = self._raw(stream, sequence)
        if found is None:
            return None
        raw, of_source = found
        payload = whole(self._opened.connection, raw)
        message = shown(stream, raw, payload, MOST_BYTES, headers=True)
        (deliveries,) = self._opened.deliveries.of(
            [message], list(self.readers().values()), of_source
        )
        return message, deliveries

    def payload(self, stream: str, sequence: int) -> bytes | None:
        """The whole payload of a message. None and raises as `message`."""
        found = self._raw(stream, sequence)
        return None if found is None else whole(self._opened.connection, found[0])

    def _raw(self, stream: str, sequence: int) -> tuple[Raw, list[Stream]] | None:
        """A change as it is stored, and its stream."""
        of_source = streams(self._opened.connection, source_name(stream))
        if stream not in [each.name for each in of_source]:
            return None
        found = self._opened.reads.get(stream, {"seq": sequence, "batch": 1})
        # The server gives the next one where this one is gone.
        if not found or found[0].sequence != sequence or found[0].subject.count(".") < 3:
            return None
        return found[0], of_source

    def sink_parts(self, sink: str) -> list[Part]:
        """What a sink reads, or all of them: the partitions, in the order of a list.

        Raises:
            UnknownSinkError: There is no such sink.
            RetryableError: NATS does not answer.
        """
        return parts(self._opened.connection, self._chosen(sink), streams(self._opened.connection))

    def sink_offsets(self, chosen: Sequence[Part]) -> list[SinkOffset]:
        """How far sinks are in these partitions. Raises RetryableError: NATS does not answer."""
        known = self.readers()
        names = {part.sink for part in chosen}
        used = {part.stream for part in chosen}
        found = [stream for stream in streams(self._opened.connection) if stream.name in used]
        places = self._opened.places.of([known[name] for name in sorted(names & set(known))], found)
        # One that was deleted, or a stream that was, is no longer told of.
        there = [part for part in chosen if (part.sink, part.stream) in places]
        return offsets(self._opened.reads, there, places, found)

    def sources(self) -> tuple[str, ...]:
        """The names of the registered sources."""
        return sources(self._specs.read())

    def source_offsets(self, names: Sequence[str]) -> list[SourceOffset]:
        """How far sources are. Raises RetryableError: NATS does not answer."""
        found = {stream.name: stream for stream in streams(self._opened.connection)}
        configured = self._sinks.sources(names)
        return self._opened.observer.of(
            self._opened.connection, names, self._opened.reads, found, configured
        )

    def schemas(self, source: str, table: str) -> list[TableVersions]:
        """The versions of tables' shapes. Raises as `schemas.versions`.

        Args:
            source: Whose; empty: of all registered sources.
            table: `table` or `schema.table`; empty: all.
        """
        names = (source,) if source else self.sources()
        return schemas.versions(self._opened.connection, names, table)

    def schema_version(self, message: Message) -> int:
        """The version that a change was written under. As `schemas.version_at`.

        Args:
            message: With its headers.
        """
        digest = dict(message.headers).get("Cdc-Schema")
        if not digest:
            return 0
        return schemas.version_at(self._opened.connection, message.source, digest, message.position)

    def shape(self, digest: str) -> TableSchema:
        """The shape with this hash. Raises as `SchemaStore.get`."""
        return SchemaStore(self._opened.connection).get(digest)

    def guard_source(self, name: str) -> LogHealth | None:
        """Have a source look after its server's log; see `connectors.contracts.source.Guarded`.

        Returns:
            How the log is; None: there is nothing to look after, or no such source.

        Raises:
            WaxtapError: NATS or the server does not answer, or refuses.
        """
        found = self._sinks.sources([name]).get(name)
        return self._opened.observer.guard(found) if found is not None else None

    def reset(self, sink: str, source: str, target: Target) -> None:
        """Set a sink that stands still to another place.

        Args:
            sink: Its name.
            source: In this source's stream; empty: in all that it reads.
            target: Where to.

        Raises:
            UnknownSinkError: There is no such sink.
            NoStreamError: It reads no stream of this source.
            OutOfRangeError: A stream has no such place.
            ConfigError: The sink cannot be used.
            RetryableError: NATS or the target cannot be reached.
        """
        (reader,) = self._chosen(sink)
        config, made = self._sinks.config(sink), self._sinks.sink(sink)
        if made is None or config is None:
            raise unusable(sink)
        found = [
            (each, place(self._opened.reads, each, target))
            for each in streams(self._opened.connection, source)
            if reader.subjects(each.source)
        ]
        if source and not found:
            raise NoStreamError(source)
        try:
            reset(self._opened.connection, config.dead_letters, reader, made, found)
        finally:
            self._opened.places.forget(sink)

    def _listing(
        self,
        found: Sequence[Stream],
        wanted: Wanted,
        order: Ordered,
        preview: int,
        left: Restriction | None = None,
    ) -> Listing:
        opened = self._opened
        return Listing(
            opened.connection, opened.reads, opened.indexes, found, wanted, order, preview, left
        )

    def _chosen(self, sink: str) -> list[Reader]:
        known = self.readers()
        if sink and sink not in known:
            raise UnknownSinkError(sink)
        return [known[sink]] if sink else list(known.values())
