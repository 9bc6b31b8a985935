"""The consumers of delivery flows, as they are seen from beside.

A flow's consumer is named `<sink>-<epoch>`, and `<sink>-<epoch>_<n>` when it was made again
(`consumer`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.errors import RetryableError
from connectors.jetstream import api

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection

_NAME = re.compile(r"(.+)-(\d+)(?:_(\d+))?")


class Owner(NamedTuple):
    """Whose a consumer is.

    Attributes:
        sink: The sink's name.
        epoch: Of the claim.
        made: How many of this claim there were, with this one.
    """

    sink: str
    epoch: int
    made: int


class Progress(NamedTuple):
    """How far the newest consumer of a sink is.

    Attributes:
        floor: Everything up to this sequence of the stream is acknowledged.
        pending: How many messages it has not been given.
        unacknowledged: How many it was given and has not acknowledged.
        redelivered: How many it was given again.
    """

    floor: int
    pending: int
    unacknowledged: int
    redelivered: int


class _Sequences(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _Consumer(msgspec.Struct, frozen=True):
    name: str
    ack_floor: _Sequences = _Sequences()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_pending: int = 0


class _Listed(msgspec.Struct, frozen=True):
    consumers: list[_Consumer] | None = None
    total: int = 0


def owner(name: str) -> Owner | None:
    """Whose consumer this is; None: no flow's."""
    found = _NAME.fullmatch(name)
    return Owner(found[1], int(found[2]), int(found[3] or 1)) if found else None


def progress(connection: Connection, stream: str) -> dict[str, Progress]:
    """How far each sink is that reads a stream, by its name.

    Raises:
        RetryableError: NATS does not answer.
    """
    newest: dict[str, tuple[int, int]] = {}
    found: dict[str, Progress] = {}
    for each in _all(connection, stream):
        whose = owner(each.name)
        if whose is None or newest.get(whose.sink, (-1, 0)) > whose[1:]:
            continue
        newest[whose.sink] = whose.epoch, whose.made
        found[whose.sink] = Progress(
            each.ack_floor.stream_seq, each.num_pending, each.num_ack_pending, each.num_redelivered
        )
    return found


def forget(connection: Connection, stream: str, sink: str) -> None:
    """Delete the consumers of a sink that stands still. Raises RetryableError as `progress`."""
    for name in api.consumer_names(connection, stream):
        whose = owner(name)
        if whose is not None and whose.sink == sink:
            api.delete_consumer(connection, stream, name)


def _all(connection: Connection, stream: str) -> list[_Consumer]:
    found: list[_Consumer] = []
    while True:
        body = {"offset": len(found)}
        try:
            page = api.call(connection, f"CONSUMER.LIST.{stream}", body, _Listed)
        except api.ApiError as error:
            if error.err_code == api.STREAM_NOT_FOUND:
                return []
            raise RetryableError("jetstream.unread", str(error), where=stream) from error
        found += page.consumers or []
        if not page.consumers or len(found) >= page.total:
            return found
