"""Finds the dead letters that are chosen, by their heads and, where these do not tell, changes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from connectors.errors import GapError
from connectors.jetstream import letter_index
from connectors.jetstream.direct import DirectGets
from connectors.jetstream.letters import read_head
from control.explorer.looking import whole
from control.explorer.messages import unpacked
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
        for raw in letter_index.stored(connection, reads, selection.sink):
            # Most have something else in them, which is seen sooner than what their heads tell.
            payload = unpacked(raw)
            if payload is not None and not look.of_payload(raw, payload):
                continue
            head = read_head(raw.subject, raw.header)
            if head is None or not selection.matches(head):
                continue
            if payload is not None or _says(connection, look, raw):
                yield head


def _says(connection: Connection, look: Look, raw: Raw) -> bool:
    """Whether a change in the object store is one that is looked for."""
    try:
        payload = whole(connection, raw)
    except GapError:  # a large row that is gone has nothing to be found in
        return False
    return look.of_payload(raw, payload)
