"""Keeps indexes of keys for what is asked by key, in bounded memory.

An index is built from the headers alone when it is asked for the first time, beside the request,
and brought up to date by each later one. One thread builds, one index at a time. What is asked no
longer is let go, and where room is short, what was asked the longest time ago.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

import structlog

from connectors.errors import WaxtapError
from connectors.jetstream import api
from control.explorer.key_index import KeyIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from connectors.jetstream.headers_only import Seen

log = structlog.get_logger()

# A stretch of so many sequences is read within a request.
_SHORT = 20_000
# All indexes together; 16 million messages.
MOST_BYTES = 256 * 1024 * 1024
# What an index takes beside its messages, generously: those of nothing are bounded as well.
_BESIDE = 4096
# So many may wait to be built; whoever asks for one more is answered by a look.
_MOST_WAITING = 16
# Seconds without a question after which an index is let go.
IDLE = 600.0
# Seconds for the look that answers the first question.
PAUSE = 1.0
# For how long a question waits for another one that brings the same index up to date, in seconds.
_PATIENCE = 0.5
# After so many messages a build looks at the room and at whether anybody still asks.
_EACH = 4096


class Covered(NamedTuple):
    """What an index is about."""

    stream: str
    created: str
    subjects: str


if TYPE_CHECKING:
    # Every message behind a sequence that is there now.
    Headers: TypeAlias = Callable[[Covered, int], Iterable[Seen]]


class _State(Enum):
    BUILDING = auto()  # or waiting for it
    READY = auto()
    TOO_LARGE = auto()


@dataclass(slots=True)
class _Entry:
    """An index.

    Attributes:
        asked: When it was asked for last.
        last: The stream's last sequence when it was to be built.
        queued: When that was.
        state: What can be done with it.
        index: Belongs to whoever holds `lock`.
        lock: Held while it is read or written.
    """

    asked: float
    last: int = 0
    queued: float = 0.0
    state: _State = _State.BUILDING
    index: KeyIndex = field(default_factory=KeyIndex)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        return self.index.size + _BESIDE


class KeyIndexes:
    """The indexes that are in use. Usable from any thread.

    Args:
        headers: Reads the headers of what an index is about.
        most_bytes: What all of them may take together.
        idle: Seconds without a question after which one is let go.
        pause: Seconds before a build begins, which the look has for itself that answers meanwhile.
    """

    def __init__(
        self,
        headers: Headers,
        most_bytes: int = MOST_BYTES,
        idle: float = IDLE,
        pause: float = PAUSE,
    ) -> None:
        self._headers, self._most, self._idle, self._pause = headers, most_bytes, idle, pause
        self._room = threading.Condition()
        # What was asked last comes last.
        self._entries: OrderedDict[Covered, _Entry] = OrderedDict()
        self._waiting: deque[Covered] = deque()
        self._builder: threading.Thread | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """What all of them take, in bytes."""
        with self._room:
            return self._size

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        with self._room:
            self._closed = True
            self._entries.clear()
            self._waiting.clear()
            self._room.notify_all()
            builder = self._builder
        if builder is not None:
            builder.join()

    def find(self, covered: Covered, key: str, first: int, last: int) -> list[int] | None:
        """The sequences of messages whose key may be this, ascending.

        Args:
            covered: Of what.
            key: As it is stored.
            first: The stream's first sequence.
            last: Its last one; everything up to it is found.

        Returns:
            None while there is no such index, or it lacks too much: it is then built meanwhile.

        Raises:
            RetryableError: NATS does not answer.
        """
        with self._room:
            entry = self._asked(covered, last)
        # Another question may be reading the same stretch: it is read once.
        if entry is None or not entry.lock.acquire(timeout=_PATIENCE):
            return None
        try:
            if not self._read(covered, entry, last):
                return None
            entry.index.forget(first)
            return entry.index.find(key)
        except BaseException:
            with self._room:
                self._drop(covered, entry)
            raise
        finally:
            entry.lock.release()

    def _asked(self, covered: Covered, last: int) -> _Entry | None:
        """The index to look into; None: it is not ready, and built if there is room for it."""
        if self._closed:
            return None
        now = time.monotonic()
        self._let_go(now)
        entry = self._entries.get(covered)
        if entry is not None:
            entry.asked = now
            self._entries.move_to_end(covered)
            if entry.state is not _State.READY:
                return None
            if last - entry.index.upto <= _SHORT:
                return entry
        if len(self._waiting) >= _MOST_WAITING:
            return None
        if entry is None:
            entry = self._entries[covered] = _Entry(now)
        entry.state, entry.last, entry.queued = _State.BUILDING, last, now
        self._waiting.append(covered)
        if self._builder is None or not self._builder.is_alive():
            self._builder = threading.Thread(
                target=self._build_all, name="waxtap-key-index", daemon=True
            )
            self._builder.start()
        self._room.notify_all()
        return None

    def _build_all(self) -> None:
        """Build what waits, and let go of what nobody asks, until the end."""
        while True:
            with self._room:
                while (wait := self._wait(time.monotonic())) != 0 and not self._closed:
                    self._room.wait(wait)
                if self._closed:
                    return
                covered = self._waiting.popleft()
                entry = self._entries.get(covered)
            if entry is not None:
                self._build(covered, entry)

    def _wait(self, now: float) -> float | None:
        """Seconds until there is something to do; None: when something is asked."""
        left = self._let_go(now)
        if not self._waiting:
            return left
        entry = self._entries.get(self._waiting[0])
        return max(entry.queued + self._pause - now, 0.0) if entry is not None else 0.0

    def _build(self, covered: Covered, entry: _Entry) -> None:
        is_done = False
        try:
            with entry.lock:
                is_done = self._read(covered, entry, entry.last)
        except (WaxtapError, api.ApiError) as error:
            log.warning(
                "an index of keys could not be built", stream=covered.stream, reason=str(error)
            )
        finally:
            with self._room:
                if is_done:
                    entry.state = _State.READY
                elif entry.state is _State.BUILDING:
                    self._drop(covered, entry)

    def _read(self, covered: Covered, entry: _Entry, last: int) -> bool:
        """Take in what is there, up to a sequence that was there before at least.

        Returns:
            Whether it is all in; if not, the index is let go, or marked as too large.
        """
        index = entry.index
        if index.upto >= last:
            return True
        for number, seen in enumerate(self._headers(covered, index.upto), 1):
            index.add(seen.sequence, seen.header)
            if number % _EACH == 0 and not self._has_room(covered, entry):
                return False
        # What lies behind its last message belongs to other topics.
        index.upto = max(index.upto, last)
        return self._has_room(covered, entry)

    def _has_room(self, covered: Covered, entry: _Entry) -> bool:
        """Whether an index is still wanted, and fits once others are let go."""
        with self._room:
            self._let_go(time.monotonic())
            if self._entries.get(covered) is not entry:
                return False
            self._make_room(covered, entry)
            return entry.state is not _State.TOO_LARGE

    def _make_room(self, covered: Covered, entry: _Entry) -> None:
        while self._size > self._most:
            oldest = next((each for each in self._entries if each != covered), None)
            if oldest is None:
                entry.state, entry.index = _State.TOO_LARGE, KeyIndex()
                return
            del self._entries[oldest]

    @property
    def _size(self) -> int:
        return sum(entry.size for entry in self._entries.values())

    def _let_go(self, now: float) -> float | None:
        """Drop what nobody has asked for long; returns when to look again, None: at a question."""
        while self._entries:
            covered, entry = next(iter(self._entries.items()))
            left = entry.asked + self._idle - now
            if left > 0:
                return left
            del self._entries[covered]
        return None

    def _drop(self, covered: Covered, entry: _Entry) -> None:
        if self._entries.get(covered) is entry:
            del self._entries[covered]
