"""Which messages are dead letters of a sink: 13 bytes a letter, however much each of them tells."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING

from connectors.jetstream import api
from connectors.jetstream.letter_index import heads
from connectors.jetstream.letters import STREAM, incarnation
from connectors.letters import State
from control.explorer.deliveries import Fate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.letters import Head

# Of so many sinks they are kept for the next question.
_KEPT = 4


class _OfStream:
    """Of one stream, in the order of the sequences once `sort` was called."""

    def __init__(self) -> None:
        self.sequences = array("Q")
        self.subjects = array("I")  # places in `names`
        self.parked = bytearray()
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def add(self, head: Head) -> None:
        number = self._numbers.setdefault(head.subject, len(self.names))
        if number == len(self.names):
            self.names.append(head.subject)
        self.sequences.append(head.sequence)
        self.subjects.append(number)
        self.parked.append(head.state is State.PARKED)

    def sort(self) -> None:
        # They are stored nearly in this order: one that was tried again comes later.
        if all(map(int.__le__, self.sequences, self.sequences[1:])):
            return
        order = sorted(range(len(self.sequences)), key=self.sequences.__getitem__)
        self.sequences = array("Q", map(self.sequences.__getitem__, order))
        self.subjects = array("I", map(self.subjects.__getitem__, order))
        self.parked = bytearray(map(self.parked.__getitem__, order))

    def fate(self, at: int) -> Fate:
        return Fate.PARKED if self.parked[at] else Fate.FAILED


class LetterPlaces:
    """The letters of a sink as they were. Usable from any thread.

    Args:
        heads: Of all of them.
    """

    def __init__(self, heads: Iterable[Head]) -> None:
        self._streams: dict[tuple[str, str], _OfStream] = {}
        for head in heads:
            stream = head.stream, incarnation(head.created)
            self._streams.setdefault(stream, _OfStream()).add(head)
        for each in self._streams.values():
            each.sort()

    def any_of(self, stream: str, created: str) -> bool:
        """Whether there are letters of this very stream."""
        return (stream, incarnation(created)) in self._streams

    def fate(self, stream: str, created: str, sequence: int) -> Fate | None:
        """What became of a message; None: it is no letter."""
        found = self._streams.get((stream, incarnation(created)))
        if found is None:
            return None
        at = bisect_left(found.sequences, sequence)
        if at == len(found.sequences) or found.sequences[at] != sequence:
            return None
        return found.fate(at)

    def sequences(
        self,
        stream: str,
        created: str,
        fates: frozenset[Fate],
        bounds: Callable[[str], Sequence[tuple[int, int]]],
    ) -> Sequence[int]:
        """The sequences of letters that have one of these fates, ascending.

        Args:
            stream: The stream's name.
            created: When it was created.
            fates: Which.
            bounds: For a subject, between which sequences they must lie.
        """
        found = self._streams.get((stream, incarnation(created)))
        return array("Q", _chosen(found, fates, bounds) if found is not None else ())


def _chosen(
    found: _OfStream,
    fates: frozenset[Fate],
    bounds: Callable[[str], Sequence[tuple[int, int]]],
) -> Iterator[int]:
    ranges = [bounds(name) for name in found.names]
    for at, (sequence, number) in enumerate(zip(found.sequences, found.subjects, strict=True)):
        if found.fate(at) in fates and any(low <= sequence <= high for low, high in ranges[number]):
            yield sequence


class Letters:
    """Reads them, and keeps them for as long as nothing changes. Usable from any thread.

    Args:
        connection: To NATS.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[object, LetterPlaces]] = OrderedDict()

    def of(self, sink: str) -> LetterPlaces:
        """The letters of a sink.

        Raises:
            RetryableError: NATS does not answer.
        """
        info = api.stream_info(self._connection, STREAM)
        if info is None or not info.state.messages:
            return LetterPlaces(())
        # Whatever comes, goes or is written anew changes one of these.
        state = info.created, info.state.last_seq, info.state.messages
        with self._lock:
            before, known = self._known.get(sink, (None, None))
            if known is not None and before == state:
                self._known.move_to_end(sink)
                return known
        found = LetterPlaces(heads(self._connection, sink))
        with self._lock:
            self._known[sink] = state, found
            self._known.move_to_end(sink)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found
