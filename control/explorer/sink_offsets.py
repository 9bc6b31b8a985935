"""How far sinks are, for each partition of the topics that they read."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream.consumers import Progress
from connectors.subjects import topic_of
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
    asked = []
    for part in chosen:
        place = places[part.sink, part.stream]
        ends = [place.upto(subject) for subject in part.subjects] if place.exact else []
        known = [end for end in ends if end is not None]
        pending = [
            reads.start(part.stream, {"seq": end + 1, "next_by_subj": subject, "batch": 1})
            for subject, end in zip(part.subjects, known, strict=False)
        ]
        asked.append((part, place, known, pending))
    found: list[SinkOffset] = []
    for part, place, known, pending in asked:
        consumer = place.acknowledged or _NOTHING
        if not known:
            found.append(SinkOffset(part, -1, consumer, -1, -1, 0))
            continue
        firsts = [raw for each in pending for raw in each.result()]
        lag = sum(raw.pending + 1 for raw in firsts)
        oldest = min((to_nanoseconds(raw.time) for raw in firsts), default=now)
        size = round(lag * average[part.stream])
        late = max(now - oldest, 0)
        found.append(SinkOffset(part, min(known), consumer, lag, size, late))
    return found
