"""Reads requests out of the inbox in chunks of changes, and lets it drop what is captured."""

from __future__ import annotations

import json
import time
from collections import deque
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import structlog

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.contracts.inbox import InboxMark
from connectors.contracts.source import Checkpoint, Chunk
from connectors.errors import FatalError, GapError, RetryableError
from connectors.webhook.request_changes import milliseconds

if TYPE_CHECKING:
    from connectors.contracts.inbox import Arrived, InboxReader
    from connectors.contracts.source import StateStore
    from connectors.webhook.endpoint import Endpoint
    from connectors.webhook.request_changes import RequestChanges

log = structlog.get_logger()

_COLUMNS = "columns"
# Requests that are captured are let go of in steps of so many seconds.
_STEP_MS = 1000


class Place(NamedTuple):
    """What a checkpoint's state tells.

    Attributes:
        generation: How often the inbox has begun anew.
        mark: The last request whose changes are all stored.
    """

    generation: int
    mark: InboxMark

    @property
    def state(self) -> dict[str, str]:
        """As it is kept in a checkpoint."""
        created, sequence, stored = self.mark.created, str(self.mark.sequence), self.mark.stored
        return {
            "generation": str(self.generation),
            "created": created,
            "sequence": sequence,
            "stored": stored,
        }

    @staticmethod
    def of(state: dict[str, str]) -> Place:
        """Read what `state` told.

        Raises:
            FatalError: It is the state of another kind of source.
        """
        try:
            mark = InboxMark(state["created"], int(state["sequence"]), state["stored"])
            return Place(int(state["generation"]), mark)
        except (KeyError, ValueError):
            raise FatalError(
                "webhook.invalid_checkpoint",
                "the stream's checkpoint is not that of a webhook source",
                cure="give the source a name whose stream no other kind of source has written",
            ) from None


class _Open(NamedTuple):
    """A request whose changes are not all handed out yet."""

    place: Place
    changes: list[Change]
    size: int


class WebhookReader:
    """Implements `contracts.SourceReader`.

    Args:
        source: The source's name.
        inbox: The inbox, behind `place`.
        changes: Makes changes of requests.
        state: Where the columns are kept that were found.
        place: Where the source stands.
        position: Of the last change that is stored; those up to it are left out.
        keep_ms: How long requests stay in the inbox.
        anchor: Whether to hand out the place itself first, so that the stream knows it even if no
            request ever comes.
        endpoint: Ended with the reader; None: others listen.
    """

    def __init__(
        self,
        source: str,
        inbox: InboxReader,
        changes: RequestChanges,
        state: StateStore,
        place: Place,
        position: str,
        keep_ms: int,
        endpoint: Endpoint | None,
        *,
        anchor: bool,
    ) -> None:
        self._source, self._inbox, self._changes, self._state = source, inbox, changes, state
        self._place, self._position, self._stored = place, position, position
        self._keep_ms, self._endpoint = keep_ms, endpoint
        self._arrived: deque[Arrived] = deque()
        self._open: _Open | None = None
        self._held: Chunk | None = None
        if anchor:
            self._held = Chunk(source, [], Checkpoint(position, place.state), place.state)
        self._confirmed: deque[tuple[int, int]] = deque()
        self._told = False

    def read(self) -> Chunk | None:
        """Return the next chunk, or None when there is nothing now.

        Raises:
            FatalError: The endpoint has ended.
            GapError: Requests are gone from the inbox, or it is another one.
        """
        if self._endpoint is not None:
            self._endpoint.check()
        if self._held is None:
            self._held = self._next()
        if self._held is None or not self._remembered():
            return None
        chunk, self._held = self._held, None
        return chunk

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Let the inbox drop what is captured and old enough."""
        mark = Place.of(checkpoint.state).mark
        if not mark.stored:
            return
        stored, kept = milliseconds(mark.stored), self._confirmed
        if not kept or (mark.sequence > kept[-1][0] and stored - kept[-1][1] >= _STEP_MS):
            kept.append((mark.sequence, stored))
        elif mark.sequence > kept[-1][0]:
            kept[-1] = (mark.sequence, kept[-1][1])
        upto = 0
        while kept and kept[0][1] <= time.time() * 1000 - self._keep_ms:
            upto = kept.popleft()[0]
        if upto:
            # The last one stays, so that the next start can tell whether the inbox is the same.
            self._inbox.purge(upto)

    def close(self) -> None:
        """Answer what was accepted, and let go of the connections. Never raises."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None
        self._inbox.close()

    def _next(self) -> Chunk | None:
        if not self._arrived:
            self._arrived.extend(self._inbox.read())
        changes: list[Change] = []
        size, resume, begun = 0, self._place.state, self._place
        while (request := self._open or self._take()) is not None:
            self._open = request
            large = len(request.changes) > CHUNK_CHANGES or request.size > CHUNK_BYTES
            if large and not changes:
                return self._cut(request, resume)
            room = len(changes) + len(request.changes) <= CHUNK_CHANGES
            if large or not room or (changes and size + request.size > CHUNK_BYTES):
                break
            changes += request.changes
            size += request.size
            self._place, self._open = request.place, None
        if not changes and self._place is begun:
            return None
        if changes:
            self._position = changes[-1].position
        return Chunk(self._source, changes, Checkpoint(self._position, self._place.state), resume)

    def _take(self) -> _Open | None:
        """The next request, without the changes that are stored already."""
        if not self._arrived:
            return None
        arrived = self._arrived.popleft()
        place = Place(self._place.generation, arrived.mark)
        changes = self._changes.of(arrived, place.generation, int(time.time() * 1000))
        if changes and changes[0].position <= self._stored:
            changes = [change for change in changes if change.position > self._stored]
        return _Open(place, changes, sum(len(change.envelope) for change in changes))

    def _cut(self, request: _Open, resume: dict[str, str]) -> Chunk:
        """A part of a request that is too large for one chunk."""
        count = size = 0
        for change in request.changes[:CHUNK_CHANGES]:
            if count and size + len(change.envelope) > CHUNK_BYTES:
                break
            count += 1
            size += len(change.envelope)
        part, rest = request.changes[:count], request.changes[count:]
        self._position = part[-1].position
        if rest:
            self._open = _Open(request.place, rest, request.size - size)
            # Read again from its beginning: the position tells what is stored of it.
            return Chunk(self._source, part, Checkpoint(self._position, resume), resume)
        self._place, self._open = request.place, None
        return Chunk(self._source, part, Checkpoint(self._position, self._place.state), resume)

    def _remembered(self) -> bool:
        """Keep new columns before anything is handed out that has them."""
        if not self._changes.grown:
            return True
        try:
            self._state.put(_COLUMNS, BytesIO(json.dumps(self._changes.columns).encode()))
        except RetryableError as error:
            if not self._told:
                self._told = True
                log.warning(
                    "new columns cannot be kept, trying again",
                    source=self._source,
                    reason=str(error),
                )
            return False
        self._changes.grown = self._told = False
        return True


def stored_columns(state: StateStore) -> dict[str, dict[str, str]]:
    """The columns that an earlier run has found.

    Raises:
        RetryableError: The store cannot be reached.
    """
    if _COLUMNS not in state.names():
        return {}
    data = BytesIO()
    try:
        state.get(_COLUMNS, data)
        found = json.loads(data.getvalue())
    except (GapError, ValueError):
        # They are found again, in the rows to come.
        return {}
    return found if isinstance(found, dict) else {}
