"""How far sinks are behind the streams that they read, as JetStream's consumers tell.

A consumer's acknowledgements follow the target's commits within about a second, so an idle sink may
show a moment's lag.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.jetstream import api

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets

# connectors.jetstream.consumer: the sink, and the epoch of its claim.
_NAME = re.compile(r"(.+)-(\d+)(?:_\d+)?")


class Lag(NamedTuple):
    """How far a sink is behind a stream.

    Attributes:
        sink: The sink's name.
        stream: The stream's name.
        messages: That are not known to be in the target.
        bytes: Of these, by the average size of the stream's messages.
        seconds: The age of the oldest of them; 0: there is none.
    """

    sink: str
    stream: str
    messages: int
    bytes: int
    seconds: float


class _Floor(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _Consumer(msgspec.Struct, frozen=True):
    name: str
    ack_floor: _Floor = _Floor()
    num_pending: int = 0
    num_ack_pending: int = 0

    @property
    def behind(self) -> int:
        return self.num_pending + self.num_ack_pending


class _Page(msgspec.Struct, frozen=True):
    consumers: list[_Consumer] | None = None
    total: int = 0


def lags(connection: Connection, gets: DirectGets, streams: Iterable[str]) -> list[Lag]:
    """The lags of every sink that reads one of these streams.

    Raises:
        RetryableError: NATS does not answer.
        ApiError: JetStream refuses.
    """
    found = []
    for stream in streams:
        info = api.stream_info(connection, stream)
        if info is None:
            continue
        size = info.state.bytes / max(1, info.state.messages)
        for sink, consumer in _latest(connection, stream).items():
            found.append(
                Lag(
                    sink,
                    stream,
                    consumer.behind,
                    round(consumer.behind * size),
                    _age(gets, stream, consumer) if consumer.behind else 0.0,
                )
            )
    return found


def _latest(connection: Connection, stream: str) -> dict[str, _Consumer]:
    """The newest consumer of each sink."""
    newest: dict[str, tuple[int, _Consumer]] = {}
    seen = 0
    while True:
        page = api.call(connection, f"CONSUMER.LIST.{stream}", {"offset": seen}, _Page)
        for consumer in page.consumers or []:
            named = _NAME.fullmatch(consumer.name)
            if named and int(named[2]) >= newest.get(named[1], (0, consumer))[0]:
                newest[named[1]] = (int(named[2]), consumer)
        seen += len(page.consumers or [])
        if not page.consumers or seen >= page.total:
            return {sink: consumer for sink, (_, consumer) in newest.items()}


def _age(gets: DirectGets, stream: str, consumer: _Consumer) -> float:
    body = {"seq": consumer.ack_floor.stream_seq + 1, "next_by_subj": ">", "batch": 1}
    for message in gets.get(stream, body):
        return max(0.0, time.time() - datetime.fromisoformat(message.time).timestamp())
    return 0.0
