"""Which changes have to wait behind a dead letter, free of I/O.

A row is known by 64 bits: BLAKE2b over its topic and the values of its key. Names of columns do not
count, so that a change on which a pipeline has failed, stored under the key's original names, and
later ones, under new names, concern the same row. Two rows with the same 64 bits would only wait
for each other.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.contracts.changes import Failure
from connectors.letters import Letter, Reason, State
from connectors.subjects import topic_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.errors import PermanentError
    from connectors.letters import Outstanding

# A change that touches more rows (a transform may make many of one) stands for its whole topic.
_MOST_ROWS = 64


class _Envelope(msgspec.Struct):
    op: str = ""
    before: msgspec.Raw = msgspec.Raw(b"null")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


def row(topic: str, key: str | bytes) -> int:
    """What a row is known by.

    Args:
        topic: Where its changes lie.
        key: Its key as a JSON object.
    """
    values = (_decode_row(key) or {}).values()
    return _digest(topic, b"\n".join([bytes(value).strip(b'"') for value in values]))


def whole(topic: str) -> int:
    """Stands for all rows of a topic."""
    return _digest(topic, b"")


def _digest(topic: str, rest: bytes) -> int:
    return int.from_bytes(blake2b(topic.encode() + b"\n" + rest, digest_size=8).digest(), "big")


def rows_of(changes: Iterable[Delivered]) -> tuple[int, ...]:
    """The rows that changes touch: of their keys, and of those that an update has replaced.

    A truncate touches all of its topic; a change without a key touches none.
    """
    rows: dict[int, None] = {}
    wholes: dict[int, None] = {}
    for change in changes:
        topic = topic_of(change.subject)
        if change.key is None:
            if is_truncate(change):
                rows[whole(topic)] = None
            continue
        rows[row(topic, change.key)] = None
        wholes[whole(topic)] = None
        before = _old_key(change)
        if before is not None:
            rows[row(topic, before)] = None
    return tuple(rows if len(rows) <= _MOST_ROWS else wholes)


def is_truncate(change: Delivered) -> bool:
    """Whether a change empties a table."""
    return change.key is None and change.table is not None and _envelope(change).op == "t"


def _old_key(change: Delivered) -> bytes | None:
    """The key that an update or a delete found, as JSON; None where the log does not tell."""
    before = _envelope(change).before
    if change.table is None or bytes(before) == b"null":
        return None
    try:
        values = _decode_row(before) or {}
    except msgspec.MsgspecError:
        return None
    key = {name: values[name] for name in change.table.key if name in values}
    return msgspec.json.encode(key) if len(key) == len(change.table.key) else None


def _envelope(change: Delivered) -> _Envelope:
    try:
        return _decode_envelope(change.envelope)
    except msgspec.MsgspecError:  # a transform has left the row only
        return _Envelope()


class Parking:
    """The outstanding letters of a share, and the rows that wait behind them.

    About 300 bytes a letter.
    """

    def __init__(self, found: Outstanding) -> None:
        # sequence → the topic's `whole`, then the rows
        self._letters: dict[int, tuple[int, ...]] = {}
        self._rows: dict[int, int | deque[int]] = {}
        self._topics: dict[int, int] = {}
        self._truncated = {whole(topic): end for topic, end in found.truncated.items()}
        for sequence, topic, rows in found.letters:
            self.add(sequence, topic, rows)

    def __len__(self) -> int:
        return len(self._letters)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._letters

    def add(self, sequence: int, topic: str, rows: Iterable[int]) -> None:
        """Take a letter; later changes of its rows wait behind it."""
        if sequence in self._letters:
            return
        all_of_topic = whole(topic)
        self._letters[sequence] = (all_of_topic, *rows)
        self._topics[all_of_topic] = self._topics.get(all_of_topic, 0) + 1
        for each in self._letters[sequence][1:]:
            there = self._rows.get(each)
            if there is None:
                self._rows[each] = sequence
                continue
            if isinstance(there, int):
                there = self._rows[each] = deque([there])
            if there[-1] < sequence:
                there.append(sequence)
            else:
                self._rows[each] = deque(sorted([*there, sequence]))

    def remove(self, sequence: int) -> None:
        """Forget a letter; one that is not there is fine."""
        all_of_topic, *rows = self._letters.pop(sequence, (0,))
        if all_of_topic == 0:
            return
        self._topics[all_of_topic] -= 1
        if not self._topics[all_of_topic]:
            del self._topics[all_of_topic]
        for each in rows:
            there = self._rows[each]
            if isinstance(there, int) or len(there) == 1:
                del self._rows[each]
            elif there[0] == sequence:
                there.popleft()
            else:
                there.remove(sequence)

    def rows(self, sequence: int) -> tuple[int, ...]:
        """The rows that a letter holds."""
        return self._letters[sequence][1:]

    def blocking(self, topics: Iterable[str], rows: Iterable[int], sequence: int) -> int:
        """The letter behind which a change at `sequence` must wait; 0: none."""
        for each in [*rows, *[whole(topic) for topic in topics]]:
            there = self._rows.get(each)
            if there is None:
                continue
            first = there if isinstance(there, int) else there[0]
            # After a crash changes before a letter may come once more: they do not wait for it.
            if first < sequence:
                return first
        return 0

    def has_topic(self, topic: str) -> bool:
        """Whether any letter is of this topic."""
        return whole(topic) in self._topics

    def truncate(self, topic: str, sequence: int) -> None:
        """Note that a table of this topic is emptied at `sequence`."""
        place = whole(topic)
        self._truncated[place] = max(sequence, self._truncated.get(place, 0))

    def emptied(self, sequence: int) -> bool:
        """Whether the table of a letter was emptied behind it."""
        return self._truncated.get(self._letters[sequence][0], 0) > sequence

    def group(self, sequences: Iterable[int]) -> list[int]:
        """These letters, and all that share rows with them, directly or by others; in order."""
        found: set[int] = set()
        seen: set[int] = set()
        left = [sequence for sequence in sequences if sequence in self._letters]
        while left:
            sequence = left.pop()
            if sequence in found:
                continue
            found.add(sequence)
            for each in self.rows(sequence):
                if each not in seen:
                    seen.add(each)
                    there = self._rows[each]
                    left.extend((there,) if isinstance(there, int) else there)
        return sorted(found)


class Sorted(NamedTuple):
    """What becomes of changes.

    Attributes:
        kept: To be written, in order.
        letters: To be put aside.
        truncated: Topics with letters of which a table is emptied, and at which sequence.
    """

    kept: list[Delivered]
    letters: list[Letter]
    truncated: list[tuple[str, int]]


def sort(
    parking: Parking,
    changes: Sequence[Delivered],
    origins: Mapping[int, Delivered],
    *,
    parks: bool,
) -> Sorted:
    """Tell changes that can be written from those that become letters, which `parking` then holds.

    Args:
        parking: The letters so far.
        changes: In stream order; those with the same sequence share their fate.
        origins: By sequence, how a change lies in the stream, where a sink's steps altered its key.
        parks: Whether changes wait behind letters of their rows.
    """
    done = Sorted([], [], [])
    for unit in together(changes):
        sequence = unit[0].sequence
        if sequence in parking:
            continue
        known = [*unit, origins[sequence]] if sequence in origins else unit
        topics = {topic_of(change.subject) for change in known}
        failure = next((change.failed for change in unit if change.failed), "")
        if not failure and not any(parking.has_topic(topic) for topic in topics):
            done.kept.extend(unit)
            continue
        rows = rows_of(known)
        topic = topic_of(unit[0].subject)
        first = parking.blocking(topics, rows, sequence) if parks else 0
        if first:
            # What waits for a whole topic holds it, too: it stays behind what is before it.
            held = [whole(each) for each in topics if parking.blocking([each], (), sequence)]
            rows = tuple(dict.fromkeys([*rows, *held]))
            reason = Reason("", "parked", f"waits behind {first}")
            letter = Letter(sequence, topic, rows, State.PARKED, reason)
        elif failure:
            letter = refused(sequence, topic, rows, pipeline_failed(failure), parks=parks)
        else:
            done.kept.extend(unit)
            for change in filter(is_truncate, unit):
                emptied = topic_of(change.subject)
                parking.truncate(emptied, sequence)
                done.truncated.append((emptied, sequence))
            continue
        parking.add(letter.sequence, letter.topic, letter.rows)
        done.letters.append(letter)
    return done


def refused(
    sequence: int, topic: str, rows: tuple[int, ...], reason: Reason, *, parks: bool
) -> Letter:
    """The letter of a change that was refused."""
    if parks:
        return Letter(sequence, topic, rows, State.FAILED, reason)
    return Letter(sequence, topic, (), State.SKIPPED, reason)


def refusal(error: PermanentError) -> Reason:
    """What is told of a change that the target refuses."""
    where = f"{error.where}: " if error.where else ""
    cure = f" → {error.cure}" if error.cure else ""
    return Reason(type(error).__name__, error.code, f"{where}{error.message}{cure}")


def pipeline_failed(failed: str) -> Reason:
    """What is told of a change on which a pipeline has failed (`Change.failed`)."""
    told = Failure.decode(failed)
    return Reason("PermanentError", told.code, f"pipeline {told.pipeline}: {told.message}")


def together(changes: Iterable[Delivered]) -> list[list[Delivered]]:
    """Changes of the same sequence, which share their fate."""
    units: list[list[Delivered]] = []
    for change in changes:
        if units and units[-1][0].sequence == change.sequence:
            units[-1].append(change)
        else:
            units.append([change])
    return units
