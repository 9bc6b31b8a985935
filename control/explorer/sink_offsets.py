"""How far sinks are, for each partition of the topics that they read."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream.consumers import Progress
from connectors.subjects import topic_of
from control.explorer.asking import SINGLE, Question, answers
from control.explorer.messages import partition_of
from control.explorer.streams import subjects
from control.explorer.timestamps import to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets
    from control.explorer.progress import Place
    from control.explorer.readers import Reader
    from control.explorer.streams import Stream

_NOTHING = Progress(0, 0, 0, 0)


class Part(NamedTuple):
    """What a sink reads of a partition in one stream; sorts as it is listed."""

    sink: str
    stream: str
    topic: str
    partition: int
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SinkOffset:
    """How far a sink is in a partition.

    Attributes:
        part: Of what.
        position: Up to this sequence the target has everything; -1: it cannot be asked now.
        consumer: Of the flow's consumer, which reads all partitions of the stream.
        lag: How many messages the target lacks; -1: that is not known.
        lag_bytes: About how many bytes these are; -1: that is not known.
        lag_time: How long ago the first of them was stored, in nanoseconds; 0: there is none.
    """

    part: Part
    position: int
    consumer: Progress
    lag: int
    lag_bytes: int
    lag_time: int


def parts(
    connection: Connection, readers: Sequence[Reader], streams: Sequence[Stream]
) -> list[Part]:
    """Every partition that a sink reads, in the order in which they are listed.

    Raises:
        RetryableError: NATS does not answer.
    """
    found: list[Part] = []
    for stream in streams:
        held = [
            subject
            for subject in subjects(connection, stream.name, f"CDC.{stream.source}.*.>")
            if subject.rpartition(".")[2].isdigit()
        ]
        for reader in readers:
            read: dict[tuple[str, int], list[str]] = defaultdict(list)
            for subject in held:
                if reader.reads(stream.source, subject):
                    read[topic_of(subject), partition_of(subject)].append(subject)
            found += [
                Part(reader.name, stream.name, topic, number, tuple(sorted(mine)))
                for (topic, number), mine in read.items()
            ]
    return sorted(found)


def offsets(
    reads: DirectGets,
    chosen: Sequence[Part],
    places: Mapping[tuple[str, str], Place],
    streams: Sequence[Stream],
) -> list[SinkOffset]:
    """How far these are. Raises RetryableError: NATS does not answer."""
    average = {
        stream.name: stream.state.bytes / max(stream.state.messages, 1) for stream in streams
    }
    now = time.time_ns()
    ends = [_ends(part, places[part.sink, part.stream]) for part in chosen]
    asked = deque(
        (index, Question(part.stream, {"seq": end + 1, "next_by_subj": subject, "batch": 1}))
        for index, (part, known) in enumerate(zip(chosen, ends, strict=True))
        for subject, end in zip(part.subjects, known, strict=False)
    )
    lags, oldest = [0] * len(chosen), [now] * len(chosen)
    for index, answer in answers(reads, asked, SINGLE):
        for raw in answer:
            lags[index] += raw.pending + 1
            oldest[index] = min(oldest[index], to_nanoseconds(raw.time))
    found: list[SinkOffset] = []
    for part, known, lag, first in zip(chosen, ends, lags, oldest, strict=True):
        consumer = places[part.sink, part.stream].acknowledged or _NOTHING
        if not known:
            found.append(SinkOffset(part, -1, consumer, -1, -1, 0))
            continue
        size = round(lag * average[part.stream])
        found.append(SinkOffset(part, min(known), consumer, lag, size, max(now - first, 0)))
    return found


def _ends(part: Part, place: Place) -> list[int]:
    """Up to where the target has each subject; none: it cannot be asked."""
    if not place.exact:
        return []
    return [end for subject in part.subjects if (end := place.upto(subject)) is not None]
