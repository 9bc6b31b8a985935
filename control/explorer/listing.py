"""Lists messages page by page.

A page lies between two ordinals of all messages that the subjects choose, and is read alone. Where
messages have to be looked at (an operation, a text, a key that no index knows yet), they are looked
at piece by piece until the page is full, or the time for one answer is over: then the list is
incomplete, and its token goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.subjects import covers
from control.explorer.key_indexes import Covered
from control.explorer.lanes import Lane, Lanes
from control.explorer.looking import Looking
from control.explorer.messages import Message
from control.explorer.page_tokens import Place, Token, stream_digest
from control.explorer.pages import Filling, Ordered, Page, piece
from control.explorer.picking import inside, picked
from control.explorer.timestamps import END, from_nanoseconds
from control.explorer.wanted import Look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets
    from control.explorer.key_indexes import KeyIndexes
    from control.explorer.states import Restriction
    from control.explorer.streams import Stream
    from control.explorer.wanted import Wanted

# So many messages are looked at between two looks at the clock.
_LEAST_PIECE, _FIRST_PIECE, _PIECE = 64, 256, 2048
# For how long one request looks at messages, in seconds.
PATIENCE = 0.7


@dataclass(frozen=True, slots=True)
class Listing:
    """One question about messages.

    Attributes:
        connection: To NATS.
        reads: Reads stored messages.
        indexes: Where the changes of rows lie.
        streams: Those that are looked into.
        wanted: Which messages.
        order: In which order.
        preview: How many bytes of each payload are shown.
        restriction: What a sink leaves of them; None: everything.
    """

    connection: Connection
    reads: DirectGets
    indexes: KeyIndexes
    streams: Sequence[Stream]
    wanted: Wanted
    order: Ordered
    preview: int
    restriction: Restriction | None = None

    def page(self, question: str, limit: int, number: int = 1, token: Token | None = None) -> Page:
        """One page.

        Args:
            question: Its digest, for the next token.
            limit: How many messages at most.
            number: Of the page, from 1, unless a token is given.
            token: Where to go on.

        Raises:
            ValueError: The token's streams are no more; says so.
            ConfigError: The topic is not well-formed.
            RetryableError: NATS does not answer.
        """
        lanes = self._lanes()
        if self.restriction is not None:
            lanes = self.restriction.lanes(self.connection, lanes)
        places = self._begin() if token is None else self._known(token)
        behind = lanes if token is None else self._behind(lanes, places)
        skip = token.skip if token else (number - 1) * limit
        candidates = self.restriction.candidates(lanes) if self.restriction else None
        if candidates is not None:
            return self._picked(question, candidates, behind, places, limit, skip)
        everything = Lanes(self.reads, lanes, by_time=self.order.by_time)
        if self.wanted.key and (candidates := self._by_key(everything.lanes)) is not None:
            return self._picked(question, candidates, behind, places, limit, skip)
        rest = everything
        if token is not None:
            rest = Lanes(self.reads, behind, by_time=self.order.by_time)
        if self.wanted.needs_look:
            return self._scan(question, rest, places, limit, skip)
        if self.restriction is not None and self.restriction.needs_look:
            page = self._scan(question, rest, places, limit, skip)
            unwanted = self.restriction.unwanted(lanes)
            return page if unwanted is None else page._replace(total=everything.total - unwanted)
        return self._counted(question, rest, everything.total, places, limit, skip)

    def _counted(
        self,
        question: str,
        rest: Lanes,
        total: int,
        places: dict[str, int],
        limit: int,
        skip: int,
    ) -> Page:
        """Read what lies between two ordinals."""
        last = min(skip + limit, rest.total)
        at = min(skip, last)
        looking = self.looking()
        filling = Filling(limit, self.preview)
        messages: list[Message] = []
        fits = True
        while at < last and fits:
            count = min(piece(self.preview), last - at)
            begin = rest.total - at - count if self.order.descending else at
            window = rest.window(begin, count, looking)
            places |= window.high if self.order.descending else window.low
            for each in window.read[:: self._step]:
                if each.message is not None:
                    messages.append(each.message)
                    fits = fits and filling.take(each.message)
            at += count
        is_end = not 0 < at < rest.total
        found = Page(messages, self._token(question, places, 0), total, 0, is_end, incomplete=False)
        return found.cut(len(filling.messages))

    def _scan(
        self, question: str, rest: Lanes, places: dict[str, int], limit: int, skip: int
    ) -> Page:
        """Look at messages until enough are found."""
        began = time.monotonic()
        deadline = began + PATIENCE
        filling = Filling(limit, self.preview)
        scanned = matching = 0
        most = piece(self.preview)
        count = min(max(limit, _FIRST_PIECE), most)
        looking = self.looking()
        fits = True
        while fits and scanned < rest.total and time.monotonic() < deadline:
            count = min(count, rest.total - scanned)
            begin = rest.total - scanned - count if self.order.descending else scanned
            read = rest.window(begin, count, looking).read
            if not read:  # what was counted has expired meanwhile
                scanned = rest.total
            for each in read[:: self._step]:
                if each.message is not None:
                    if matching >= skip:
                        fits = filling.take(each.message)
                        if not fits:
                            break
                    matching += 1
                places[each.stream] = each.sequence + self._step
                scanned += 1
                if filling.is_full:
                    fits = False
                    break
            # No more than what there is time for, as far as the speed so far tells.
            now = time.monotonic()
            possible = round(scanned * (deadline - now) / (now - began))
            count = min(count * 2, _PIECE, most, max(possible, _LEAST_PIECE))
        is_end = scanned >= rest.total
        place = self._token(question, places, max(skip - matching, 0))
        incomplete = not is_end and not filling.is_full
        return Page(filling.messages, place, -1, scanned, is_end, incomplete)

    def _picked(
        self,
        question: str,
        candidates: Mapping[str, Sequence[int]],
        behind: Sequence[Lane],
        places: dict[str, int],
        limit: int,
        skip: int,
    ) -> Page:
        """Read messages whose sequences are known."""
        deadline = time.monotonic() + PATIENCE
        left = inside(candidates, behind)
        total = sum(map(len, candidates.values()))
        # Whatever else must hold is only seen when they are read.
        counted = not (self.wanted.needs_payload or not self.wanted.subjects_tell)
        if self.wanted.key and self.restriction is not None:
            whole = {subjects for each in self.streams for subjects in self._subjects(each)}
            split = any(lane.subjects not in whole for lane in behind)
            counted = counted and not (self.restriction.fates or split)
        if counted and len(left) == 1:  # pages before this one need not be read
            ((stream, sequences),) = left.items()
            end = max(len(sequences) - skip, 0)
            left = {stream: sequences[:end] if self.order.descending else sequences[skip:]}
            skip = 0
        filling = Filling(limit, self.preview)
        scanned = matching = 0
        is_end = True
        for each in picked(
            self.reads,
            left,
            self.looking(),
            by_time=self.order.by_time,
            descending=self.order.descending,
        ):
            if each.message is not None and _lies_in(behind, each.message):
                if matching >= skip and not filling.take(each.message):
                    is_end = False
                    break
                matching += 1
            places[each.stream] = each.sequence + self._step
            scanned += 1
            if filling.is_full or time.monotonic() > deadline:
                is_end = scanned >= sum(map(len, left.values()))
                break
        place = self._token(question, places, max(skip - matching, 0))
        incomplete = not is_end and not filling.is_full
        return Page(filling.messages, place, total if counted else -1, scanned, is_end, incomplete)

    def _by_key(self, lanes: Sequence[Lane]) -> dict[str, Sequence[int]] | None:
        """The sequences of a row's changes by stream; None: not every stream is indexed yet.

        What a sink leaves of a topic is found in the index of the whole topic.
        """
        found: dict[str, list[int]] = {}
        complete = True
        for stream in self.streams:
            mine = [lane for lane in lanes if lane.stream == stream.name]
            sequences: list[int] = []
            for subjects in self._subjects(stream):
                if not any(covers(subjects, lane.subjects) for lane in mine):
                    continue
                covered = Covered(stream.name, stream.created, subjects)
                first, last = stream.state.first_seq, stream.state.last_seq
                part = self.indexes.find(covered, self.wanted.key, first, last)
                if part is None:
                    complete = False
                else:
                    sequences += part
            if sequences:
                found[stream.name] = sorted(sequences)
        return inside(found, lanes) if complete else None

    def looking(self) -> Looking:
        """What looks at messages for this question."""
        return Looking(
            self.connection,
            Look(self.wanted),
            self.preview,
            self.wanted.needs_payload,
            self.restriction,
        )

    def _lanes(self) -> list[Lane]:
        return [
            Lane(stream.name, subject, *bounds)
            for stream in self.streams
            for bounds in [self._bounds(stream)]
            for subject in self._subjects(stream)
        ]

    def _subjects(self, stream: Stream) -> tuple[str, ...]:
        return self.wanted.subjects(stream.source)

    def _bounds(self, stream: Stream) -> tuple[int, int]:
        """The sequences of a stream that its time range leaves."""
        low, high = stream.state.first_seq, stream.state.last_seq
        if self.wanted.start is not None:
            low = max(low, self._at(stream, self.wanted.start))
        if self.wanted.end is not None:
            high = min(high, self._at(stream, self.wanted.end) - 1)
        return low, high

    def _at(self, stream: Stream, moment: int) -> int:
        """The sequence of the first message that was stored at a moment or later."""
        if moment <= 0:  # before there was any
            return stream.state.first_seq
        if moment >= END:
            return stream.state.last_seq + 1
        body = {
            "start_time": from_nanoseconds(moment),
            "next_by_subj": f"CDC.{stream.source}.>",
            "batch": 1,
        }
        found = self.reads.get(stream.name, body)
        return found[0].sequence if found else stream.state.last_seq + 1

    @property
    def _step(self) -> int:
        return -1 if self.order.descending else 1

    def _begin(self) -> dict[str, int]:
        if self.order.descending:
            return {stream.name: stream.state.last_seq for stream in self.streams}
        return {stream.name: stream.state.first_seq for stream in self.streams}

    def _behind(self, lanes: Sequence[Lane], places: Mapping[str, int]) -> list[Lane]:
        if self.order.descending:
            return [
                lane._replace(high=min(lane.high, places[lane.stream]))
                for lane in lanes
                if lane.stream in places  # what is newer lies before the first page
            ]
        return [lane._replace(low=max(lane.low, places.get(lane.stream, 0))) for lane in lanes]

    def _known(self, token: Token) -> dict[str, int]:
        created = {stream.name: stream_digest(stream.created) for stream in self.streams}
        for name, place in token.places.items():
            if created.get(name) != place.created:
                raise ValueError(f"the page token has expired: stream {name} was deleted")
        return {name: place.sequence for name, place in token.places.items()}

    def _token(self, question: str, places: Mapping[str, int], skip: int) -> Token:
        created = {stream.name: stream_digest(stream.created) for stream in self.streams}
        return Token(
            question,
            {name: Place(created[name], sequence) for name, sequence in places.items()},
            skip,
        )


def _lies_in(lanes: Sequence[Lane], message: Message) -> bool:
    """Whether one of the lanes of its stream has its subject."""
    return any(
        lane.stream == message.stream and covers(lane.subjects, message.subject) for lane in lanes
    )
