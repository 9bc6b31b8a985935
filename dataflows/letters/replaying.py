"""Delivers dead letters once more, each row's in their order, while the flow goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.letters import LetterAnswer
from dataflows.letters.parking import is_truncate, pipeline_failed, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.errors import PermanentError
    from connectors.letters import LetterStore, Reason
    from dataflows.letters.parking import Parking

# So many letters are given to the target at once.
_PIECE = 200


class _Ready(NamedTuple):
    """A letter, and what is to be written of it: nothing where a filter drops it by now."""

    sequence: int
    changes: list[Delivered]


class Replay:
    """One replay.

    Args:
        parking: The letters; those that are delivered leave it.
        letters: Where they are stored.
        reprocess: What a letter is once the present pipelines and the sink's steps have made it.
        attempt: Stores changes in the target; returns why they are refused.
    """

    def __init__(
        self,
        parking: Parking,
        letters: LetterStore,
        reprocess: Callable[[Delivered], list[Delivered]],
        attempt: Callable[[list[Delivered]], PermanentError | None],
    ) -> None:
        self._parking, self._letters = parking, letters
        self._reprocess, self._attempt = reprocess, attempt
        self._answer = LetterAnswer()
        # Rows of which a letter stays: what follows of them stays, too.
        self._held: set[int] = set()

    def run(self, sequences: Sequence[int]) -> LetterAnswer:
        """Deliver letters, together with all that share rows with them."""
        self._answer.gone = sum(sequence not in self._parking for sequence in sequences)
        left = self._parking.group(sequences)
        size = _PIECE
        while left:
            taken, left = left[:size], left[size:]
            ready = self._prepare(taken)
            if not ready:
                continue
            error = self._attempt([change for each in ready for change in each.changes])
            if error is None:
                self._done([each.sequence for each in ready])
                self._answer.replayed += len(ready)
                size = min(size * 2, _PIECE)
                continue
            names = [each.sequence for each in ready]
            reasons = {each.sequence: each for each in (error, *error.also)}
            if len(ready) == 1:
                reasons.setdefault(names[0], error)
            again: list[int] = []
            for name in names:
                if self._waits(name):
                    continue
                if name in reasons:
                    self._stays(name, refusal(reasons[name]))
                else:
                    again.append(name)
            left = [*again, *left]
            # A target that names several names all: then what is left of the piece will do.
            if not error.also:
                size = max(1, len(ready) // 2)
        return self._answer

    def _prepare(self, sequences: Sequence[int]) -> list[_Ready]:
        """Read letters and let the pipelines make changes of them again."""
        free = [sequence for sequence in sequences if not self._waits(sequence)]
        ready: list[_Ready] = []
        for sequence, stored in zip(free, self._letters.get(free), strict=True):
            if stored is None:
                self._parking.remove(sequence)
                self._answer.gone += 1
                continue
            # Of those before it one may have failed just now.
            if self._waits(sequence):
                continue
            changes = self._reprocess(stored)
            failed = next((change.failed for change in changes if change.failed), "")
            if failed:
                self._stays(sequence, pipeline_failed(failed))
                continue
            if self._parking.emptied(sequence):
                changes = [*changes, *_deletes(changes)]
            ready.append(_Ready(sequence, changes))
        return ready

    def _waits(self, sequence: int) -> bool:
        """Whether a letter must stay because one before it does."""
        rows = self._parking.rows(sequence)
        if self._held.isdisjoint(rows):
            return False
        self._held.update(rows)
        self._answer.waiting += 1
        return True

    def _stays(self, sequence: int, reason: Reason) -> None:
        """A letter has failed again."""
        self._held.update(self._parking.rows(sequence))
        self._letters.failed_again(sequence, reason)
        self._answer.failed += 1
        self._answer.error = self._answer.error or f"[{reason.code}] {reason.message}"

    def _done(self, sequences: Sequence[int]) -> None:
        self._letters.delete(sequences)
        for sequence in sequences:
            self._parking.remove(sequence)


class _Origin(msgspec.Struct):
    source: msgspec.Raw = msgspec.Raw(b"null")
    ts_ms: int | None = None


_decode_origin = msgspec.json.Decoder(_Origin).decode


def _deletes(changes: Iterable[Delivered]) -> list[Delivered]:
    """What a truncate behind a letter has to do once the letter is delivered after all.

    The truncate itself was delivered in its time, and rows that came after it must stay. Of that
    time only the place in the stream is known, so the deletes tell the letter's.
    """
    return [
        change._replace(
            envelope=_delete(change.key, change.envelope), unavailable=(), json_nulls=()
        )
        for change in changes
        if change.key is not None and not is_truncate(change)
    ]


def _delete(key: str, envelope: bytes) -> bytes:
    try:
        origin = _decode_origin(envelope)
    except msgspec.DecodeError:
        # It is the target that says so, of the letter itself.
        origin = _Origin()
    source, ts_ms = bytes(origin.source), origin.ts_ms
    told = b"" if source == b"null" else b',"source":%b' % source
    told += b"" if ts_ms is None else b',"ts_ms":%d' % ts_ms
    return b'{"before":%b,"after":null,"op":"d"%b}' % (key.encode(), told)
