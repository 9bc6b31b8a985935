"""What came of a poll, as it is stored before the first of its changes is handed on.

An API cannot be asked again for what it said. So the changes that a poll found, in their order, and
what is known behind them are stored first; a source that goes on reads the same changes again.

The file is a gzip stream of lines, each one JSON value:

    the head                              `Head`
    `Head.delta` lines                    [key, hash or null, cursor]: what was known before
    `Head.changes` pairs of lines         [op, key, hash or null, cursor], then the record or null

Positions are `<poll>-<index>`: 12 and 9 decimal digits.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from connectors.errors import GapError
from connectors.rest.compare import Entry
from connectors.rest.records import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

VERSION = 1
_FASTEST = 1


class Validators(msgspec.Struct, frozen=True):
    """By what an API can tell that nothing has changed.

    Attributes:
        etag: Of the answer; empty: none.
        modified: Its `Last-Modified`; empty: none.
    """

    etag: str = ""
    modified: str = ""


class Head(msgspec.Struct, frozen=True):
    """What an outcome says of itself.

    Attributes:
        version: Of this format.
        poll: Its number.
        at_ms: When the poll began, Unix time in milliseconds.
        base: The name of the whole state that `delta` is about; empty: nothing was known then.
        delta: How many entries of it follow.
        changes: How many changes follow; at least one.
        mode: `full` or `incremental`.
        columns: The records' columns with their types, as far as they were found out.
        cursor: The greatest cursor so far, as the API writes it; empty in full mode.
        order: What it sorts by; None in full mode.
        from_order: Records before it are not known; None: all are.
        validators: Of the answer, where it was the only one.
        spent: So many bytes of deltas were stored since the base.
        question: What was asked (`question.question`); empty: it was not kept yet.
    """

    version: int
    poll: int
    at_ms: int
    base: str
    delta: int
    changes: int
    mode: str
    columns: list[tuple[str, str]]
    cursor: str = ""
    order: Order | None = None
    from_order: Order | None = None
    validators: Validators = Validators()
    spent: int = 0
    question: str = ""


class Found(NamedTuple):
    """One change of a poll.

    Attributes:
        op: `c`, `u` or `d`.
        key: Of the record, as in `contracts.Change`.
        hash: Of the record; None for `d`.
        cursor: What its cursor sorts by.
        record: JSON on one line; `null` for `d`.
    """

    op: str
    key: str
    hash: bytes | None
    cursor: Order | None
    record: bytes


_Read = TypeVar("_Read")
_Line = tuple[str, str, bytes | None, Order | None]
_DeltaLine = tuple[str, bytes | None, Order | None]
_head = msgspec.json.Decoder(Head).decode
_line = msgspec.json.Decoder(_Line).decode
_delta_line = msgspec.json.Decoder(_DeltaLine).decode
_encode = msgspec.json.Encoder().encode


def write(into: BinaryIO, head: Head, delta: Iterable[Entry], changes: Iterable[Found]) -> None:
    """Write an outcome; `head` says how many entries and changes there are."""
    with gzip.GzipFile(fileobj=into, mode="wb", compresslevel=_FASTEST, mtime=0) as file:
        file.write(_encode(head) + b"\n")
        for entry in delta:
            file.write(_encode(tuple(entry)) + b"\n")
        for change in changes:
            file.write(_encode(tuple(change[:4])) + b"\n" + change.record + b"\n")


class Outcome:
    """A stored outcome that is being read: head, delta, changes, in this order.

    Args:
        file: Where it begins; closed with the outcome.
        name: Under which it is stored, for errors.

    Raises:
        GapError: `rest.outcome_damaged`.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._under = file
        self._file = gzip.GzipFile(fileobj=file, mode="rb")
        try:
            self.head = self._read(_head, self._next())
        except BaseException:
            self.close()
            raise
        if self.head.version != VERSION:
            self.close()
            raise GapError(
                "rest.outcome_version",
                f"it was written by another version ({self.head.version}, known: {VERSION})",
                where=name,
                cure="run the version that wrote it, or a later one",
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._under.close()

    def delta(self) -> Iterator[Entry]:
        """What was known before the poll, as it differs from the base."""
        for _ in range(self.head.delta):
            yield Entry(*self._read(_delta_line, self._next()))

    def changes(self) -> Iterator[Found]:
        """The changes, once the delta has been read."""
        for _ in range(self.head.changes):
            line = self._read(_line, self._next())
            yield Found(line[0], line[1], line[2], line[3], self._next())

    def _next(self) -> bytes:
        try:
            line = self._file.readline()
        except (OSError, EOFError) as error:
            raise self._damaged(str(error)) from None
        if not line.endswith(b"\n"):
            raise self._damaged("it ends too soon")
        return line[:-1]

    def _read(self, decode: Callable[[bytes], _Read], line: bytes) -> _Read:
        try:
            return decode(line)
        except msgspec.MsgspecError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> GapError:
        return GapError(
            "rest.outcome_damaged",
            f"what a poll has found cannot be read: {why}",
            where=self.name,
            cure="restore the bucket from a backup",
        )


def position(poll: int, index: int) -> str:
    """The position of a poll's change."""
    return f"{poll:012d}-{index:09d}"


def split_position(text: str) -> tuple[int, int]:
    """Poll and index of a position; (0, -1) before the first. Raises ValueError."""
    if not text:
        return 0, -1
    poll, _, index = text.partition("-")
    return int(poll), int(index)
