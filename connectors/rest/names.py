"""Names under which a source stores what its polls found. Free of I/O.

    poll-<number>-<own>-<before>     an outcome: of which poll, its own word and that of the
                                     outcome before it, `first` where there is none
    base-<number>-<own>              all that was known behind that poll

Words are random, so that a process that has been replaced overwrites nothing of its successor's.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_FIRST = "first"
_POLL = re.compile(r"poll-(\d{12})-([0-9a-f]{12})-([0-9a-f]{12}|first)")
_BASE = re.compile(r"base-(\d{12})-([0-9a-f]{12})")


class PollName(NamedTuple):
    """The name of an outcome, taken apart."""

    number: int
    own: str
    before: str

    def __str__(self) -> str:
        return f"poll-{self.number:012d}-{self.own}-{self.before}"


def parse(name: str) -> PollName | None:
    """An outcome's name; None: it is none."""
    found = _POLL.fullmatch(name)
    return PollName(int(found[1]), found[2], found[3]) if found else None


def following(last: PollName | None, number: int) -> PollName:
    """A fresh name for the outcome behind `last`.

    Args:
        last: None: it is the first.
        number: Of the poll.
    """
    return PollName(number, secrets.token_hex(6), last.own if last else _FIRST)


def base_name(number: int) -> str:
    """A fresh name for all that is known behind a poll."""
    return f"base-{number:012d}-{secrets.token_hex(6)}"


def base_number(name: str) -> int:
    """Behind which poll a base is; -1: it is no base's name."""
    found = _BASE.fullmatch(name)
    return int(found[1]) if found else -1


def chain_after(last: PollName | None, names: Iterable[str], floor: int = 0) -> list[PollName]:
    """The outcomes that follow `last`, each behind the other.

    Of several that follow the same one, of which none can have been handed on, the first by name is
    taken, which every process would take.

    Args:
        last: None: those from the first one on.
        names: All that is stored.
        floor: Polls up to this number do not follow.
    """
    behind: dict[str, list[PollName]] = {}
    for name in filter(None, map(parse, names)):
        behind.setdefault(name.before, []).append(name)
    chain: list[PollName] = []
    own, number = (last.own, last.number) if last else (_FIRST, floor)
    while following := [name for name in behind.get(own, ()) if name.number > number]:
        chain.append(min(following))
        own, number = chain[-1].own, chain[-1].number
    return chain


def chain_to(goal: PollName, last: PollName | None, names: Iterable[str]) -> list[PollName] | None:
    """The outcomes behind `last` up to `goal`; None: one of them is not there."""
    known = {name.own: name for name in filter(None, map(parse, names))}
    chain: list[PollName] = []
    own = goal.own
    while own != (last.own if last else _FIRST):
        name = known.pop(own, None)
        if name is None:
            return None
        chain.append(name)
        own = name.before
    return chain[::-1]
