"""Chooses messages by what became of them at one sink."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from connectors.errors import ConfigError
from connectors.subjects import covers
from control.explorer.deliveries import Fate, delivery
from control.explorer.messages import addressed
from control.explorer.progress import Place
from control.explorer.streams import subjects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import Raw
    from control.explorer.lanes import Lane
    from control.explorer.letter_places import LetterPlaces, Letters
    from control.explorer.progress import Places
    from control.explorer.readers import Reader
    from control.explorer.streams import Stream

LETTERS = frozenset({Fate.FAILED, Fate.PARKED})
_NOTHING = Place(None, None)
# A sink that has come to different places in more subjects of a stream is read one topic at a time.
_MOST_LANES = 256


@dataclass(frozen=True, slots=True)
class Restriction:
    """What a sink leaves of messages.

    Attributes:
        reader: The sink.
        fates: What may have become of them; empty: anything.
        places: How far it is, by stream.
        letters: Its dead letters; None: nobody asks for fates.
        streams: By name.
    """

    reader: Reader
    fates: frozenset[Fate]
    places: Mapping[str, Place]
    letters: LetterPlaces | None
    streams: Mapping[str, Stream]

    @property
    def needs_look(self) -> bool:
        """Whether sequences alone do not tell."""
        letters = self.letters
        return letters is not None and any(
            letters.any_of(stream.name, stream.created) for stream in self.streams.values()
        )

    def takes(self, stream: str, raw: Raw) -> bool:
        """Whether a message is wanted, by its fate."""
        if addressed(raw.header) not in ("", self.reader.name):
            return False
        if self.letters is None:
            return True
        created, sequence = self.streams[stream].created, raw.sequence
        if (fate := self.letters.fate(stream, created, sequence)) is not None:
            return fate in self.fates
        place = self.places.get(stream, _NOTHING)
        return delivery(self.reader.name, raw.subject, sequence, place, None).fate in self.fates

    def lanes(self, connection: Connection, lanes: Sequence[Lane]) -> list[Lane]:
        """What is left of lanes.

        Raises:
            ConfigError: The sink has come to too many different places.
            RetryableError: NATS does not answer.
        """
        found = [each for lane in lanes for each in self._lanes(connection, lane)]
        if len(found) > _MOST_LANES + len(lanes):
            raise ConfigError(
                "control.too_many_places",
                f"the sink has come to different places in {len(found)} subjects",
                where="filter.topic",
                cure="ask for one topic",
            )
        return found

    def candidates(self, lanes: Sequence[Lane]) -> dict[str, Sequence[int]] | None:
        """The sequences of what is wanted, where letters alone tell; None: they do not."""
        if self.letters is None or not self.fates <= LETTERS:
            return None
        found: dict[str, Sequence[int]] = {}
        for stream in self.streams.values():
            mine = [lane for lane in lanes if lane.stream == stream.name]
            sequences = self.letters.sequences(
                stream.name, stream.created, self.fates, partial(_bounds, mine)
            )
            if sequences:
                found[stream.name] = sequences
        return found

    def unwanted(self, lanes: Sequence[Lane]) -> int | None:
        """How many messages of lanes are letters that are not wanted; None: others are not either.

        Args:
            lanes: As `lanes` gave them.
        """
        if self.letters is None:
            return 0
        known = all(place.exact for place in self.places.values())
        if self.fates & LETTERS and not (known and {Fate.SENT, Fate.UNSENT} <= self.fates):
            return None  # lanes reach beyond what was sent, or was not
        count = 0
        for stream in self.streams.values():
            bounds = partial(_bounds, [lane for lane in lanes if lane.stream == stream.name])
            count += len(
                self.letters.sequences(stream.name, stream.created, LETTERS - self.fates, bounds)
            )
        return count

    def _lanes(self, connection: Connection, lane: Lane) -> list[Lane]:
        stream = self.streams[lane.stream]
        if self.fates and self.fates <= LETTERS:
            return [lane]
        found: list[Lane] = []
        whole = True
        for subject in subjects(connection, lane.stream, lane.subjects):
            if self.reader.reads(stream.source, subject):
                found.append(self._bounded(lane._replace(subjects=subject)))
            else:
                whole = False
        if whole and len({(each.low, each.high) for each in found}) == 1:
            return [found[0]._replace(subjects=lane.subjects)]
        return found

    def _bounded(self, lane: Lane) -> Lane:
        """Between which sequences a subject's messages may have one of the fates."""
        place = self.places.get(lane.stream, _NOTHING)
        upto = place.upto(lane.subjects) or 0
        behind = Fate.UNSENT if place.exact else Fate.UNKNOWN
        # A letter may lie on either side.
        if not self.fates or self.fates & LETTERS or {Fate.SENT, behind} <= self.fates:
            return lane
        if Fate.SENT in self.fates:
            return lane._replace(high=min(lane.high, upto))
        if behind in self.fates:
            return lane._replace(low=max(lane.low, upto + 1))
        return lane._replace(high=lane.low - 1)


def _bounds(lanes: Sequence[Lane], subject: str) -> list[tuple[int, int]]:
    """Between which sequences lanes hold a subject."""
    return [(lane.low, lane.high) for lane in lanes if covers(lane.subjects, subject)]


def restriction(
    letters: Letters,
    places: Places,
    reader: Reader,
    fates: frozenset[Fate],
    streams: Sequence[Stream],
) -> Restriction:
    """What a sink leaves, as it is now. Raises RetryableError: NATS does not answer."""
    by_name = {stream.name: stream for stream in streams}
    found = {name: place for (_, name), place in places.of([reader], streams).items()}
    # Letters are read behind the places: one that was stored before its offset moved is seen.
    return Restriction(reader, fates, found, letters.of(reader.name) if fates else None, by_name)
