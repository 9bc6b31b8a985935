"""How changes are cut into pieces when one of them is refused, free of I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflows.letters.parking import is_truncate, together

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from connectors.contracts.changes import Delivered

# What is tried, and refused, together.
Unit = list["Delivered"]


def units(changes: Sequence[Delivered]) -> list[Unit]:
    """The smallest parts that can be written by themselves.

    Changes of one sequence stand together, and so do neighbouring truncates of one transaction:
    tables that refer to each other can only be emptied together.
    """
    found: list[Unit] = []
    emptying = ""
    for unit in together(changes):
        transaction = unit[0].transaction if is_truncate(unit[0]) else ""
        if transaction and transaction == emptying:
            found[-1].extend(unit)
        else:
            found.append(unit)
        emptying = transaction
    return found


def transactions(changes: Sequence[Delivered]) -> list[Unit]:
    """The parts that a sink writes by itself which applies the source's transactions whole."""
    found: list[Unit] = []
    current = ""
    for change in changes:
        if current and change.transaction == current:
            found[-1].append(change)
        else:
            found.append([change])
        current = "" if change.last else change.transaction
    return found


def flat(parts: Iterable[Unit]) -> list[Delivered]:
    """The changes of several parts."""
    return [change for part in parts for change in part]
