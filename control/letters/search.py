"""Finds the dead letters that are chosen, by their heads and, where these do not tell, changes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from connectors.errors import GapError
from connectors.jetstream import letter_index
from connectors.jetstream.direct import DirectGets
from control.explorer.looking import whole
from control.explorer.wanted import Look, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import Raw
    from connectors.letters import Head
    from control.letters.selection import Selection


def chosen(connection: Connection, selection: Selection) -> Iterator[Head]:
    """The letters that are chosen, in the order in which they were stored, one by one.

    Raises:
        RetryableError: NATS does not answer.
        ConfigError: We are not allowed to read them.
    """
    if not selection.needs_content:
        yield from filter(selection.matches, letter_index.heads(connection, selection.sink))
        return
    look = Look(Wanted(ops=selection.ops, text=selection.text))
    with closing(DirectGets(connection)) as reads:
        for head, raw in letter_index.stored(connection, reads, selection.sink):
            if selection.matches(head) and _says(connection, look, raw):
                yield head


def _says(connection: Connection, look: Look, raw: Raw) -> bool:
    """Whether a change is one that is looked for."""
    try:
        payload = whole(connection, raw)
    except GapError:  # a large row that is gone has nothing to be found in
        return False
    return look.of_payload(raw, payload)
