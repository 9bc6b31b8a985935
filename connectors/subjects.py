"""Subjects of NATS, compared by what they stand for; and how far each of them is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
