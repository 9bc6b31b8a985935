"""What a writer must know of its stream after a doubt: where it ends, and who wrote last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import FencedError, GapError
from connectors.jetstream import api
from connectors.jetstream.frames import read_checkpoint

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.stream import StreamClaim


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
    info = api.stream_info(connection, claim.stream)
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
    message = api.message(connection, claim.stream, end)
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
