"""Where the changes of a row lie, kept in memory for topics that are asked by key.

16 bytes a message: 64 bits of the key's hash, and the sequence. A hash may belong to two keys, so
what is found has to be looked at. An index is built from the headers alone when its topic is asked
for the first time, beside the request, and brought up to date by each later one.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import structlog

from connectors.errors import WaxtapError
from connectors.jetstream import api
from connectors.jetstream.headers_only import headers_of

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection

log = structlog.get_logger()

_WIDTH = 8
_KEY = b"\r\nCdc-Key: "
# A stretch of so many sequences is read within a request.
_SHORT = 20_000
# All indexes together; 16 million messages.
MOST_BYTES = 256 * 1024 * 1024


class KeyIndex:
    """An index of one filter of one stream. Not safe for threads.

    Attributes:
        upto: Up to this sequence everything is in it.
    """

    def __init__(self) -> None:
        self.upto = 0
        self._hashes = bytearray()
        self._sequences = array("Q")

    @property
    def size(self) -> int:
        """What it takes, in bytes."""
        return len(self._hashes) + len(self._sequences) * self._sequences.itemsize

    def add(self, sequence: int, header: bytes) -> None:
        """Take in a message behind all that are known, by its header block."""
        start = header.find(_KEY)
        if start >= 0:
            start += len(_KEY)
            self._hashes += _hashed(header[start : header.find(b"\r\n", start)])
            self._sequences.append(sequence)
        self.upto = sequence

    def find(self, key: str) -> list[int]:
        """The sequences of messages whose key may be this, ascending."""
        needle, hashes = _hashed(key.encode("ascii")), self._hashes
        found: list[int] = []
        at = hashes.find(needle)
        while at >= 0:
            if at % _WIDTH == 0:
                found.append(self._sequences[at // _WIDTH])
                at += _WIDTH
            else:  # the end of one and the beginning of the next
                at += 1
            at = hashes.find(needle, at)
        return found


class Covered(NamedTuple):
    """What an index is about."""

    stream: str
    created: str
    subjects: str


class KeyIndexes:
    """Keeps the indexes that were used last, as far as there is room. Usable from any thread.

    Args:
        connection: To NATS.
        most_bytes: The room.
    """

    def __init__(self, connection: Connection, most_bytes: int = MOST_BYTES) -> None:
        self._connection, self._most = connection, most_bytes
        self._lock = threading.Lock()
        self._indexes: OrderedDict[Covered, KeyIndex] = OrderedDict()
        self._busy: set[Covered] = set()
        self._too_large: set[Covered] = set()
        self._building = threading.Lock()
        self._closed = False

    @property
    def size(self) -> int:
        """What all of them take, in bytes."""
        with self._lock:
            return sum(index.size for index in self._indexes.values())

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._closed = True
        with self._building:
            pass

    def find(self, covered: Covered, key: str, last: int) -> list[int] | None:
        """The sequences of messages whose key may be this, up to `last`, ascending.

        Returns:
            None while there is no such index, or it lacks too much: it is then built meanwhile.

        Raises:
            RetryableError: NATS does not answer.
        """
        with self._lock:
            if covered in self._busy or covered in self._too_large:
                return None
            index = self._indexes.pop(covered, None)
            self._busy.add(covered)
        if index is None or last - index.upto > _SHORT:
            thread = threading.Thread(
                target=self._build,
                args=(covered, index, last),
                name="waxtap-key-index",
                daemon=True,
            )
            thread.start()
            return None
        try:
            self._read(covered, index, last)
            found = index.find(key)
        except BaseException:
            self._put(covered, None)
            raise
        self._put(covered, index)
        return found

    def _build(self, covered: Covered, index: KeyIndex | None, last: int) -> None:
        # One at a time: whoever asks meanwhile is answered by looking at messages.
        with self._building:
            try:
                index = index or KeyIndex()
                self._read(covered, index, last)
            except (WaxtapError, api.ApiError) as error:
                log.warning(
                    "an index of keys could not be built", stream=covered.stream, reason=str(error)
                )
                index = None
            self._put(covered, index)

    def _read(self, covered: Covered, index: KeyIndex, last: int) -> None:
        """Take in what is there, up to a sequence that was there before at least."""
        if index.upto >= last:
            return
        for seen in headers_of(self._connection, covered.stream, covered.subjects, index.upto):
            index.add(seen.sequence, seen.header)
            if index.size > self._most or self._closed:
                return
        # What lies behind its last message belongs to other topics.
        index.upto = max(index.upto, last)

    def _put(self, covered: Covered, index: KeyIndex | None) -> None:
        with self._lock:
            self._busy.discard(covered)
            if index is None or self._closed:
                return
            if index.size > self._most:
                self._too_large.add(covered)
                return
            self._indexes[covered] = index
            while sum(each.size for each in self._indexes.values()) > self._most:
                self._indexes.popitem(last=False)


def _hashed(key: bytes) -> bytes:
    # Python's own hash: it lives as long as this process, and so does the index.
    return hash(key).to_bytes(_WIDTH, "little", signed=True)
