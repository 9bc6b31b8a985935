"""What a writer must know of its stream at a start or after a doubt: its end, and who wrote last.

While the server stores an atomic batch, a look from outside may find the stream to end in the
middle of it; only the last message of a batch carries a checkpoint.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.errors import FencedError, GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.frames import read_checkpoint, read_headers

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.stream import StreamClaim


# A batch is stored within milliseconds; an end that stays inside of one was cut off there.
_BATCH_PATIENCE = 5.0
_LOOK_EVERY = 0.01


def settled(
    connection: Connection, stream: str
) -> tuple[api.StreamInfo | None, api.StoredMessage | None]:
    """A stream and its last message, once no batch is being stored.

    Returns:
        None without a stream; no message when it is empty, or its last message is gone.

    Raises:
        RetryableError: NATS does not answer.
        ApiError: JetStream refuses.
    """
    deadline = time.monotonic() + _BATCH_PATIENCE
    while True:
        info = api.stream_info(connection, stream)
        if info is None or not info.state.last_seq:
            return info, None
        last = api.message(connection, stream, info.state.last_seq)
        if last is None or not _inside_batch(last) or time.monotonic() > deadline:
            return info, last
        time.sleep(_LOOK_EVERY)


def _inside_batch(message: api.StoredMessage) -> bool:
    headers = read_headers(message.hdrs)
    return "Nats-Batch-Id" in headers and "Nats-Batch-Commit" not in headers


def verify_own(nats: NatsSpec, claim: StreamClaim) -> None:
    """Check that a claim under which nothing was written yet still stands.

    Raises:
        FencedError: A newer claim exists.
        GapError: As `end_of_own_stream`.
        RetryableError: NATS does not answer, or refuses.
    """
    with connect(nats) as connection:
        try:
            end_of_own_stream(connection, claim, claim.sequence)
        except api.ApiError as error:
            raise RetryableError(
                "jetstream.unexamined", error.description, where=claim.stream
            ) from error


def end_of_own_stream(connection: Connection, claim: StreamClaim, acknowledged: int) -> int:
    """The last sequence of a claimed stream, which the claim's writer has written.

    Args:
        connection: Where the stream is.
        claim: The writer's right.
        acknowledged: The last sequence known to be stored.

    Raises:
        FencedError: A newer claim exists.
        GapError: The stream was replaced, truncated, purged, or written by somebody else.
        RetryableError: NATS does not answer.
        ApiError: JetStream refuses.
    """
    info, message = settled(connection, claim.stream)
    if info is None or info.created != claim.created:
        raise GapError(
            "jetstream.stream_replaced",
            "the stream was deleted" + (" and made again" if info else ""),
            where=claim.stream,
            cure="restart the flow: the new stream starts anew",
        )
    end = info.state.last_seq
    if end < acknowledged:
        raise GapError(
            "jetstream.truncated",
            f"the stream ends at sequence {end}, but {acknowledged} was acknowledged",
            where=claim.stream,
            cure="restore the stream; run the server with `sync_interval: always`",
        )
    if message is None:
        if end == acknowledged:
            return end
        raise GapError(
            "jetstream.purged", "the stream was purged while it was written", where=claim.stream
        )
    last = read_checkpoint(message.hdrs, claim.stream)
    if last is None:
        raise GapError(
            "jetstream.foreign_writer",
            f"the last message ({message.subject}, sequence {end}) was not written by Waxtap",
            where=claim.stream,
            cure="take the right to publish to CDC.> from the other writer, and restart",
        )
    if last.writer != claim.writer:
        raise FencedError(
            "jetstream.fenced",
            "a newer flow of the same source has taken the stream over",
            where=claim.stream,
            cure="let only one flow of a source run",
        )
    return end
