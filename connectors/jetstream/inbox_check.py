"""Whether an inbox still is the one that was read, and holds what follows.

Besides the inbox's creation time it is looked at whether its message at the known place is the one
that was read: a server that has lost its newest messages in a power failure gives their sequences
to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from connectors.contracts.inbox import InboxMark
from connectors.errors import GapError
from connectors.jetstream import api
from connectors.jetstream.stored import status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from connectors.jetstream.replies import Reply

log = structlog.get_logger()


class _Told(msgspec.Struct, frozen=True):
    error: api.Refusal | None = None
    created: str = ""
    state: api.StreamState = api.StreamState()


class _Got(msgspec.Struct, frozen=True):
    message: api.StoredMessage | None = None


class Found(msgspec.Struct, frozen=True):
    """What is there.

    Attributes:
        created: When the inbox was made; empty: there is none.
        first: The sequence of its first message, or of the next one while it is empty.
        last: The sequence of its last message.
        stored: When the message at the place was stored; empty: it is gone.
    """

    created: str
    first: int
    last: int
    stored: str


def moment(text: str) -> str:
    """A time of JetStream in a form that sorts; the server leaves zeros at its end out."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}" if text else ""


def questions(stream: str, mark: InboxMark) -> Callable[[Sequence[str]], bytes]:
    """Makes the two requests whose answers `examine` takes."""
    body = f'{{"seq":{max(mark.sequence, 1)}}}'

    def encode(replies: Sequence[str]) -> bytes:
        return (
            f"PUB $JS.API.STREAM.INFO.{stream} {replies[0]} 0\r\n\r\n"
            f"PUB $JS.API.STREAM.MSG.GET.{stream} {replies[1]} {len(body)}\r\n{body}\r\n"
        ).encode("ascii")

    return encode


def examine(stream: str, mark: InboxMark, info: Reply, message: Reply) -> bool:
    """Judge the answers to `questions`; False where they tell nothing.

    Raises:
        GapError: As `check`.
    """
    if any(each.header and status(each.header) for each in (info, message)):
        return False
    told = msgspec.json.decode(info.payload, type=_Told)
    if told.error is not None and told.error.err_code != api.STREAM_NOT_FOUND:
        return False
    got = msgspec.json.decode(message.payload, type=_Got).message
    state = told.state
    check(
        stream,
        mark,
        Found(told.created, max(state.first_seq, 1), state.last_seq, got.time if got else ""),
    )
    return True


def check(
    stream: str, mark: InboxMark, found: Found, accept: Collection[str] = ()
) -> tuple[InboxMark, bool, str]:
    """Check that an inbox holds what follows a place.

    Returns:
        Behind which place to go on, whether sequences begin anew, and the time (RFC 3339) up to
        which messages are known already; the place itself, False and nothing unless a loss is
        accepted.

    Raises:
        GapError: The inbox is another one, its end was lost, or messages are gone unread.
    """
    beginning = InboxMark(found.created, found.first - 1, "")
    if found.created != mark.created:
        token = f"replaced:{stream}@{mark.sequence}"
        what = "it was deleted" + (" and made again" if found.created else "")
        _refuse("jetstream.inbox_replaced", what, stream, token, accept)
        return beginning, True, ""
    other = mark.stored and found.stored and moment(found.stored) != moment(mark.stored)
    if found.last < mark.sequence or other:
        token = f"truncated:{stream}@{mark.sequence}"
        what = (
            f"message {mark.sequence}, which was read, is no longer what it was: its end was lost"
        )
        _refuse("jetstream.inbox_truncated", what, stream, token, accept)
        return beginning, True, mark.stored
    if found.first > mark.sequence + 1:
        token = f"gap:{stream}@{mark.sequence + 1}-{found.first - 1}"
        what = f"messages {mark.sequence + 1} to {found.first - 1} are gone unread"
        _refuse("jetstream.inbox_gap", what, stream, token, accept)
        return beginning, False, ""
    return mark, False, ""


def _refuse(code: str, what: str, stream: str, token: str, accept: Collection[str]) -> None:
    if token in accept:
        log.warning("going on with another inbox, as accepted", stream=stream, accepted=token)
        return
    raise GapError(
        code,
        what,
        where=stream,
        cure=f"restore the stream, or accept the loss with `accept: [{token!r}]`",
    )
