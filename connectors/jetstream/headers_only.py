"""Reads the headers of everything on some subjects, without the payloads."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from connectors.errors import RetryableError
from connectors.jetstream import api
from connectors.jetstream.pull import PullWindow, Status
from connectors.jetstream.stored import sequences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.wire import Incoming

_SILENCE = 10.0
_LOOK_AGAIN = 0.2
_SHORT_LIVED_NS = 30_000_000_000


class Seen(NamedTuple):
    """What is read of a message."""

    sequence: int
    subject: str
    header: bytes


def headers_of(connection: Connection, stream: str, subject: str, after: int = 0) -> Iterator[Seen]:
    """Every message on `subject` (may hold wildcards) that is there now, in stream order.

    Args:
        connection: To NATS.
        stream: Where the messages lie.
        subject: A filter.
        after: Only those behind this sequence.

    Raises:
        RetryableError: NATS does not answer, or the connection was lost meanwhile.
        ApiError: JetStream refuses.
    """
    name = f"headers-{uuid4().hex}"
    config = {
        "name": name,
        "filter_subjects": [subject],
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "ack_policy": "none",
        "headers_only": True,
        "inactive_threshold": _SHORT_LIVED_NS,
        "mem_storage": True,
        "num_replicas": 1,
    }
    left = api.create_consumer(connection, stream, config).num_pending
    incoming: deque[Incoming] = deque()
    came = threading.Event()

    def take(message: Incoming) -> None:
        incoming.append(message)
        came.set()

    inbox = connection.inbox()
    losses = connection.losses
    subscription = connection.subscribe(inbox, take)
    try:
        place = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        window = PullWindow(place, inbox, connection.max_payload)
        heard, received = time.monotonic(), 0
        while left:
            if frame := window.request():
                connection.send(frame)
            if not came.wait(_LOOK_AGAIN):
                # What was deleted meanwhile does not come any more.
                info = api.consumer_info(connection, stream, name)
                left = info.num_pending + info.delivered.consumer_seq - received
            came.clear()
            if connection.losses != losses or time.monotonic() - heard > _SILENCE:
                raise RetryableError(
                    "jetstream.timeout", "reading what is stored was interrupted", where=stream
                )
            while incoming and left:
                message = incoming.popleft()
                place_, reply, header, _ = message
                if header[8:9] == b" ":
                    if window.status(message) is Status.LOST:
                        raise RetryableError(
                            "jetstream.timeout", "a consumer was lost", where=stream
                        )
                    continue
                heard = time.monotonic()
                window.asked -= 1
                received += 1
                left -= 1
                yield Seen(sequences(reply)[0], place_.decode(), header)
    finally:
        connection.unsubscribe(subscription)
        api.delete_consumer(connection, stream, name)
