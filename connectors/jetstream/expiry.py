"""Whether a stream still is the one that was read, and holds what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from connectors.errors import GapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.stream import refuse_truncated

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.sink import Claim, Share
    from connectors.jetstream.api import StreamInfo
    from connectors.jetstream.spec import NatsSpec

log = structlog.get_logger()


def shortened(nats: NatsSpec, claim: Claim, accept: Collection[str]) -> Share | None:
    """The share to claim instead, when its stream was truncated and the owner accepts that.

    Returns:
        None while the stream holds everything that the target has.

    Raises:
        GapError: The stream was truncated.
        RetryableError: NATS does not answer.
    """
    stream, known = claim.share.stream, max(claim.offsets.values())
    with connect(nats) as connection:
        info = api.stream_info(connection, stream)
    if info is None or info.created != claim.share.created or info.state.last_seq >= known:
        return None
    end = refuse_truncated(stream, info.state.last_seq, known, accept)
    return replace(claim.share, end=end)


def check_identity(share: Share, info: StreamInfo | None) -> StreamInfo:
    """Return `info` if it is the stream that was claimed.

    Raises:
        GapError: It was deleted, or deleted and made again.
    """
    if info is None or info.created != share.created:
        raise GapError(
            "jetstream.stream_replaced",
            "the stream was deleted" + (" and made again" if info else ""),
            where=share.stream,
            cure="restart the flow: it reads the new stream from its beginning",
        )
    return info


def check_expired(stream: str, seen: int, info: StreamInfo, accept: Collection[str]) -> bool:
    """Check that the message behind `seen` can still be read, if there was one.

    Returns:
        True when messages are missing, and the owner accepts that.

    Raises:
        GapError: Messages are missing.
    """
    first = info.state.first_seq
    if first <= seen + 1:
        return False
    token = f"gap:{stream}@{seen + 1}-{first - 1}"
    # On a stream that goes on expiring the end moves: an open range accepts it, wherever it is.
    if token in accept or f"gap:{stream}@{seen + 1}-" in accept:
        log.warning("going on behind a gap, as accepted", stream=stream, accepted=token)
        return True
    raise GapError(
        "jetstream.gap",
        f"messages {seen + 1} to {first - 1} are gone from the stream before they were delivered: "
        "they expired (max_age) or were purged",
        where=stream,
        cure=f"load the target anew, or go on without them with `accept: [{token!r}]` (without the "
        "last number while messages go on expiring)",
    )
