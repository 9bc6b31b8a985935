"""Subjects of NATS: how ours are made, what they stand for, and how far each of them is stored.

A change lies at `CDC.<source>.<topic>.<partition>`, and one on which a pipeline has failed at
`CDC.<source>.dead.<topic>.<partition>`: sinks read it with the topic, other readers do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


# The first word of a topic that nobody else may use.
DEAD = "dead"


def change_subject(source: str, topic: str, partition: int, *, dead: bool = False) -> str:
    """Where a change of a topic lies."""
    return f"CDC.{source}.{DEAD + '.' if dead else ''}{topic}.{partition}"


def topic_of(subject: str) -> str:
    """The topic of a change that lies at `subject`."""
    words = subject.split(".")[2:-1]
    return ".".join(words[1:] if words[0] == DEAD else words)


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject that `subject` (may hold wildcards) stands for matches `pattern`."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, word in enumerate(wanted):
        if word == ">":
            return index < len(given)
        if index >= len(given) or given[index] == ">":
            return False
        if word not in ("*", given[index]):
            return False
    return len(wanted) == len(given)


def stored_upto(offsets: Mapping[str, int], subject: str) -> int:
    """The sequence up to which a target has everything of a subject; 0: nothing.

    Args:
        offsets: The last sequence stored of each subject; these may hold wildcards.
        subject: May hold wildcards too.
    """
    return max((end for pattern, end in offsets.items() if covers(pattern, subject)), default=0)
