"""A lane: the messages of one stream whose subjects match one filter, between two sequences.

How many lie before a sequence is known from what the server says comes behind it
(`Nats-Num-Pending`). What is stored meanwhile would be counted, too: the count behind the lane's
end is asked before and after, and where the two differ, once more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from control.explorer.asking import BATCHES, MOST_BYTES, SINGLE, Question, answers
from control.explorer.cuts import Cut, narrowed
from control.explorer.timestamps import from_nanoseconds, to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.jetstream.direct import DirectGets, Raw
    from control.explorer.messages import Message

# So many messages too many are cheaper than one more question.
_SLACK = 64
# Of a stream that grows all the time the last answer counts: it may be off by what came meanwhile.
_ROUNDS = 4
# Cuts that are kept of earlier windows.
_REMEMBERED = 4


class Lane(NamedTuple):
    """What is read.

    Attributes:
        stream: The stream's name.
        subjects: A filter of subjects.
        low: The first sequence that belongs to it.
        high: The last one.
    """

    stream: str
    subjects: str
    low: int
    high: int


class Read(NamedTuple):
    """A message that was read: its place, and what was made of it; None: it is not wanted."""

    stream: str
    sequence: int
    message: Message | None


class Lookup(Protocol):
    """Makes of a message what is shown of it, and forgets its payload; None: it is not wanted."""

    def __call__(self, stream: str, raw: Raw) -> Message | None:
        """Look at one message of a stream."""
        ...


class Window(NamedTuple):
    """A piece of the merged lanes.

    Attributes:
        read: In ascending order.
        low: By stream, behind which sequence nothing was looked at yet when one reads upwards: the
            next one.
        high: By stream, the same downwards.
    """

    read: list[Read]
    low: dict[str, int]
    high: dict[str, int]


class Lanes:
    """Several lanes in one order.

    Args:
        reads: Reads stored messages.
        lanes: Which.
        by_time: Merged by the time of storing; otherwise by sequence. Within a stream both are
            the same.

    Raises:
        RetryableError: NATS does not answer.
    """

    def __init__(self, reads: DirectGets, lanes: Sequence[Lane], *, by_time: bool) -> None:
        self._reads = reads
        known = [lane for lane in lanes if lane.low <= lane.high]
        counts = self._counts([(lane, {"seq": lane.low}) for lane in known])
        self.lanes = tuple(lane for lane, (count, *_) in zip(known, counts, strict=True) if count)
        self._counted = tuple(count for (count, *_) in counts if count)
        self._by_time = by_time and len({lane.stream for lane in self.lanes}) > 1
        self._cuts: list[Cut] = []

    @property
    def total(self) -> int:
        """How many messages there are."""
        return sum(self._counted)

    def window(self, first: int, count: int, look: Lookup) -> Window:
        """The messages of the ordinals `first` up to `first + count`, as far as there are any.

        Args:
            first: Counted from 0.
            count: How many.
            look: Given each of them as it comes in.

        Raises:
            RetryableError: NATS does not answer.
        """
        last = min(first + count, self.total)
        if first >= last:
            return Window([], self._places(self._end.places), self._places(self._end.places))
        if not self._cuts:
            self._cuts = [self._begin, self._end]
        single = len(self.lanes) == 1
        low = max((cut for cut in self._cuts if cut.total <= first), key=lambda cut: cut.total)
        high = min((cut for cut in self._cuts if cut.total >= last), key=lambda cut: cut.total)
        # A single lane is read from its place on, as far as is wanted.
        last_cut = high.total if single else last
        low, high = narrowed(low, high, first, last_cut, self._probe, _SLACK)
        amounts = (
            [last - low.total]
            if single
            else [end - start for start, end in zip(low.ranks, high.ranks, strict=True)]
        )
        found = self._read(low.places, amounts, look)
        skipped, taken, beyond = (
            found[: first - low.total],
            found[first - low.total : last - low.total],
            found[last - low.total :],
        )
        upwards = self._places(low.places)
        for each in skipped + taken:
            upwards[each.stream] = max(upwards[each.stream], each.sequence + 1)
        ends = high.places
        if single and found:
            ends = (found[-1].sequence + 1,)
            self._cuts.append(Cut(ends[0], ends, (low.total + len(found),)))
        # Neighbouring windows begin from here.
        self._cuts = [*self._cuts[:2], *self._cuts[2:][-_REMEMBERED:], low, high]
        downwards = {name: place - 1 for name, place in self._places(ends).items()}
        for each in taken + beyond:
            downwards[each.stream] = min(downwards[each.stream], each.sequence - 1)
        return Window(taken, upwards, downwards)

    @property
    def _begin(self) -> Cut:
        places = tuple(lane.low for lane in self.lanes)
        value = min(places)
        if self._by_time:
            value = min(self._time_at(lane) for lane in self.lanes)
        return Cut(value, places, (0,) * len(places))

    @property
    def _end(self) -> Cut:
        places = tuple(lane.high + 1 for lane in self.lanes)
        value = max(places, default=0)
        if self._by_time:
            value = max(self._time_at(lane, last=True) for lane in self.lanes) + 1
        return Cut(value, places, self._counted)

    def _places(self, places: Sequence[int]) -> dict[str, int]:
        """The smallest place of each stream."""
        found: dict[str, int] = {}
        for lane, place in zip(self.lanes, places, strict=True):
            found[lane.stream] = min(found.get(lane.stream, place), place)
        return found

    def _time_at(self, lane: Lane, *, last: bool = False) -> int:
        """When the lane's first message was stored, or no earlier than its last one."""
        body: dict[str, object] = {"seq": lane.low, "next_by_subj": lane.subjects, "batch": 1}
        if last:
            body = {"multi_last": [lane.subjects], "up_to_seq": lane.high, "batch": 1024}
        found = self._reads.get(lane.stream, body)
        return max((to_nanoseconds(raw.time) for raw in found), default=0)

    def _probe(self, value: int) -> Cut:
        """The cut at a value of the axis."""
        place = {"start_time": from_nanoseconds(value)} if self._by_time else {"seq": value}
        asked: list[tuple[Lane, Mapping[str, object]]] = []
        for lane in self.lanes:
            inside = {"seq": min(max(value, lane.low), lane.high + 1)}
            asked.append((lane, place if self._by_time else inside))
        places, ranks = [], []
        found = self._counts(asked)
        for lane, counted, (left, sequence) in zip(self.lanes, self._counted, found, strict=True):
            places.append(min(max(sequence, lane.low), lane.high + 1))
            ranks.append(counted if sequence > lane.high else min(max(counted - left, 0), counted))
        return Cut(value, tuple(places), tuple(ranks))

    def _counts(self, asked: Sequence[tuple[Lane, Mapping[str, object]]]) -> list[tuple[int, int]]:
        """For each lane: how many of it come from a place on, and the sequence of the first."""
        results: list[tuple[int, int]] = [(0, 0)] * len(asked)
        open_ = list(range(len(asked)))
        for round_ in range(_ROUNDS):
            questions = deque[tuple[int, Question]]()
            for index in open_:
                lane, place = asked[index]
                end: dict[str, object] = {"seq": lane.high + 1}
                questions += ((index, _single(lane, body)) for body in (end, place, end))
            told: dict[int, list[tuple[int, int]]] = {}
            for index, found in answers(self._reads, questions, SINGLE):
                told.setdefault(index, []).append(_first(found))
            again = []
            for index, (before, here, after) in told.items():
                results[index] = (max(here[0] - after[0], 0), here[1])
                if before[0] != after[0] and round_ + 1 < _ROUNDS:
                    again.append(index)
            open_ = again
        return results

    def _read(self, places: Sequence[int], amounts: Sequence[int], look: Lookup) -> list[Read]:
        """So many messages of each lane from its place on, merged."""
        asked = deque(
            ((lane, amount), _batch(lane, place, amount))
            for lane, place, amount in zip(self.lanes, places, amounts, strict=True)
            if amount
        )
        found: list[tuple[int, Read]] = []
        for (lane, amount), got in answers(self._reads, asked, BATCHES):
            left = amount - len(got)
            # The server sends so many bytes at once, and no more.
            if got and left > 0 and got[-1].pending:
                asked.appendleft(((lane, left), _batch(lane, got[-1].sequence + 1, left)))
            for raw in got:
                sequence = raw.sequence
                if sequence <= lane.high:
                    value = to_nanoseconds(raw.time) if self._by_time else sequence
                    found.append((value, Read(lane.stream, sequence, look(lane.stream, raw))))
        found.sort(key=lambda each: (each[0], each[1].stream, each[1].sequence))
        return [read for _, read in found]


def _single(lane: Lane, place: Mapping[str, object]) -> Question:
    return Question(lane.stream, {**place, "next_by_subj": lane.subjects, "batch": 1})


def _batch(lane: Lane, sequence: int, amount: int) -> Question:
    return Question(
        lane.stream,
        {
            "seq": sequence,
            "next_by_subj": lane.subjects,
            "batch": amount,
            "max_bytes": MOST_BYTES,
        },
    )


def _first(found: Sequence[Raw]) -> tuple[int, int]:
    """How many match from a place on, and the first one's sequence."""
    if not found:
        return 0, 1 << 63
    return found[0].pending + 1, found[0].sequence
