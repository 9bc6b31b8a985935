"""Topics as they are found in the streams."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream.topics import filter_subjects
from connectors.subjects import topic_of
from control.explorer.asking import SINGLE, Question, answers
from control.explorer.messages import partition_of
from control.explorer.streams import streams, subjects
from control.explorer.timestamps import from_nanoseconds, to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets
    from control.explorer.streams import Stream

_MINUTE = 60.0


class Held(NamedTuple):
    """What a stream holds of a topic's partition.

    Attributes:
        stream: The stream.
        partition: Its number.
        subjects: How many messages on each; a change on which a pipeline has failed has its own.
    """

    stream: Stream
    partition: int
    subjects: dict[str, int]


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic in one stream.

    Attributes:
        stream: The stream's name.
        source: Whose it is.
        partition: Its number.
        messages: How many.
        bytes: About how many: the stream's average message, times the messages.
        first: Sequence and time (nanoseconds since 1970) of the first message.
        last: Of the last one.
        rate: Messages a second over the last minute.
    """

    stream: str
    source: str
    partition: int
    messages: int
    bytes: int
    first: tuple[int, int]
    last: tuple[int, int]
    rate: float


def held(connection: Connection, pattern: str, source: str = "") -> dict[str, list[Held]]:
    """Every topic that matches a pattern, in the order of their names, with what holds it.

    Args:
        connection: To NATS.
        pattern: As sinks have it; empty: all.
        source: Of one source only.

    Raises:
        ConfigError: The pattern is not well-formed.
        RetryableError: NATS does not answer.
    """
    found: dict[str, list[Held]] = defaultdict(list)
    for stream in streams(connection, source):
        filters = [f"CDC.{stream.source}.*.>"]
        if pattern not in ("", "*"):
            filters = list(filter_subjects(stream.source, [pattern]))
        parts: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        for each in filters:
            for subject, count in subjects(connection, stream.name, each).items():
                if subject.rpartition(".")[2].isdigit():
                    parts[topic_of(subject), partition_of(subject)][subject] = count
        for (topic, partition), counts in parts.items():
            found[topic].append(Held(stream, partition, counts))
    ordered = sorted(found.items())
    return {
        topic: sorted(parts, key=lambda part: (part.stream.name, part.partition))
        for topic, parts in ordered
    }


def partitions(reads: DirectGets, parts: Sequence[Held]) -> list[Partition]:
    """What there is to tell of partitions. Raises RetryableError: NATS does not answer."""
    since = from_nanoseconds(time.time_ns() - round(_MINUTE * 1e9))
    asked = deque(
        ((index, field), Question(part.stream.name, body))
        for index, part in enumerate(parts)
        for subject in part.subjects
        for field, body in (
            ("first", {"seq": 1, "next_by_subj": subject, "batch": 1}),
            ("last", {"multi_last": [subject], "batch": 1}),
            ("lately", {"start_time": since, "next_by_subj": subject, "batch": 1}),
        )
    )
    places: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    recent: dict[int, int] = defaultdict(int)
    for (index, field), found in answers(reads, asked, SINGLE):
        if field == "lately":
            recent[index] += sum(raw.pending + 1 for raw in found)
        else:
            places[index, field] += [(raw.sequence, to_nanoseconds(raw.time)) for raw in found]
    return [
        _partition(part, places[index, "first"], places[index, "last"], recent[index])
        for index, part in enumerate(parts)
    ]


def _partition(
    part: Held, first: list[tuple[int, int]], last: list[tuple[int, int]], recent: int
) -> Partition:
    state, messages = part.stream.state, sum(part.subjects.values())
    return Partition(
        stream=part.stream.name,
        source=part.stream.source,
        partition=part.partition,
        messages=messages,
        bytes=state.bytes * messages // max(state.messages, 1),
        first=min(first, default=(0, 0)),
        last=max(last, default=(0, 0)),
        rate=recent / _MINUTE,
    )
