"""Collects what a preflight finds, where one fault does not hide another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import WaxtapError

if TYPE_CHECKING:
    from collections.abc import Callable


def findings(*trials: Callable[[], object]) -> list[WaxtapError]:
    """Run every trial; returns the errors that they raised, in their order."""
    found: list[WaxtapError] = []
    for trial in trials:
        try:
            trial()
        except WaxtapError as error:
            found.append(error)
    return found
