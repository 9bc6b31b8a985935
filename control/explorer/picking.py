"""Reads messages whose sequences are known, in order."""

from __future__ import annotations

from array import array
from collections import deque
from heapq import merge
from typing import TYPE_CHECKING

from control.explorer.asking import SINGLE, Question, answers
from control.explorer.lanes import Read
from control.explorer.timestamps import to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from connectors.jetstream.direct import DirectGets
    from control.explorer.lanes import Lane, Lookup

# So many questions are prepared at once.
_PIECE = 256


def picked(
    reads: DirectGets,
    candidates: Mapping[str, Sequence[int]],
    look: Lookup,
    *,
    by_time: bool,
    descending: bool,
) -> Iterator[Read]:
    """The messages, as far as they are still there.

    Args:
        reads: Reads stored messages.
        candidates: By stream, sequences in ascending order.
        look: Given each of them as it comes in.
        by_time: Merged by the time of storing; otherwise by sequence.
        descending: The latest first.

    Raises:
        RetryableError: NATS does not answer.
    """
    by_time = by_time and len(candidates) > 1
    sign = -1 if descending else 1
    at_once = max(SINGLE // max(len(candidates), 1), 1)
    found = [
        _of_stream(reads, stream, sequences[::sign], look, at_once, by_time=by_time)
        for stream, sequences in sorted(candidates.items())
    ]
    ordered = merge(*found, key=lambda each: (each[0], each[1].stream), reverse=descending)
    return (read for _, read in ordered)


def _of_stream(
    reads: DirectGets,
    stream: str,
    sequences: Sequence[int],
    look: Lookup,
    at_once: int,
    *,
    by_time: bool,
) -> Iterator[tuple[int, Read]]:
    questions = deque[tuple[int, Question]]()
    for begin in range(0, len(sequences), _PIECE):
        part = sequences[begin : begin + _PIECE]
        questions += ((each, Question(stream, {"seq": each, "batch": 1})) for each in part)
        for sequence, found in answers(reads, questions, at_once):
            for raw in found:
                if raw.sequence == sequence:  # the server gives the next one where it is gone
                    value = to_nanoseconds(raw.time) if by_time else sequence
                    yield value, Read(stream, sequence, look(stream, raw))


def inside(
    candidates: Mapping[str, Sequence[int]], lanes: Sequence[Lane]
) -> dict[str, Sequence[int]]:
    """Those sequences that lie in a lane of their stream."""
    bounds: dict[str, list[tuple[int, int]]] = {}
    for lane in lanes:
        bounds.setdefault(lane.stream, []).append((lane.low, lane.high))
    return {
        stream: array(
            "Q",
            (
                each
                for each in sequences
                if any(low <= each <= high for low, high in bounds.get(stream, ()))
            ),
        )
        for stream, sequences in candidates.items()
    }
