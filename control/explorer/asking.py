"""Asks for stored messages a few questions at a time.

Answers carry whole rows, and lie in memory from when they come until somebody looks at them. So
only a few questions are under way at once, however many streams and partitions there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator, Mapping

    from connectors.jetstream.direct import DirectGets, Pending, Raw

_Whose = TypeVar("_Whose")

# So many questions for one message each; and for many messages, with what one answer may hold. A
# message that is larger by itself is given all the same.
SINGLE, BATCHES, MOST_BYTES = 32, 8, 1024 * 1024


class Question(NamedTuple):
    """What is asked of a stream: as in `DirectGets.start`."""

    stream: str
    body: Mapping[str, object]


def answers(
    reads: DirectGets, asked: deque[tuple[_Whose, Question]], at_once: int
) -> Iterator[tuple[_Whose, list[Raw]]]:
    """The answers in the order of the questions, each given as soon as it is there.

    Args:
        reads: Reads stored messages.
        asked: Questions, each with whose it is. Whoever takes the answers may add some.
        at_once: So many are under way.

    Raises:
        RetryableError: NATS does not answer.
    """
    under_way: list[tuple[_Whose, Pending]] = []
    while asked or under_way:
        while asked and len(under_way) < at_once:
            whose, question = asked.popleft()
            under_way.append((whose, reads.start(question.stream, question.body)))
        whose, pending = under_way.pop(0)
        yield whose, pending.result()
