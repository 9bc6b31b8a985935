"""Writes a share's batches, and puts aside what the target refuses: one bad row stops nothing.

A batch that is refused is written again in pieces until the culprit is alone, or at once without
it where the target names it. The culprit becomes a dead letter, and later changes of its row are
parked behind it (`parking`). A letter is stored for good before the target's offset passes its
change; after a crash between the two the change comes once more, and is known for a letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from connectors.contracts.sink import Batch
from connectors.errors import FatalError, PermanentError
from connectors.letters import LetterAnswer, State
from connectors.subjects import topic_of
from dataflows.kept import KEPT_BYTES, Kept
from dataflows.letters.parking import Parking, refusal, refused, rows_of, sort, together
from dataflows.letters.pieces import flat, transactions, units
from dataflows.letters.replaying import Replay
from dataflows.letters.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Claim, Sink
    from connectors.letters import Letter, LetterRequest, LetterStore
    from dataflows.configuration.options import OnRefusal
    from dataflows.letters.pieces import Unit


class DeadLetterWriter:
    """A `contracts.SinkWriter` that goes on behind what the target refuses.

    Args:
        sink: The target.
        claim: The right to write.
        letters: Where what it refuses is put aside.
        on_refusal: What becomes of later changes of the same row.
        reprocess: What a letter is once the present pipelines and the sink's steps have made it.
        most: Bytes of a transaction that are kept while it is under way.

    Raises:
        FencedError: A newer claim exists.
        RetryableError: The flow stops while it waits for the letters' store.
    """

    def __init__(
        self,
        sink: Sink,
        claim: Claim,
        letters: LetterStore,
        on_refusal: OnRefusal,
        reprocess: Callable[[Delivered], list[Delivered]],
        most: int = KEPT_BYTES,
    ) -> None:
        self._sink, self._claim, self._letters = sink, claim, letters
        self._on_refusal, self._reprocess = on_refusal, reprocess
        self._parking = Parking(letters.load())
        self._writer = sink.open(claim)
        self._stored = 0
        self._whole = sink.whole_transactions
        # Changes up to here have come, and a flush stores them.
        self._settled = min(claim.offsets[subject] for subject in claim.share.subjects)
        # Given to the writer and not known to be stored.
        self._kept = Kept(most if self._whole else None)
        self._telling = Telling(claim.share)

    @property
    def stored(self) -> int:
        """As in `contracts.SinkWriter`."""
        return max(self._stored, self._writer.stored)

    def write(self, batch: Batch) -> None:
        """As in `contracts.SinkWriter`; what is refused becomes a dead letter.

        Raises:
            PermanentError: A change is refused, and `on_refusal` is `stop`.
            FatalError: `delivery.read_again`: a change of a transaction that is too large to be
                kept was put aside.
        """
        self._kept.origins.update(batch.origins)
        changes = self._sort(batch.changes)
        if changes is not batch.changes:
            batch = Batch(batch.claim, changes, batch.upto, batch.complete, batch.origins)
        self._settled = batch.complete if self._whole else batch.upto
        self._give(batch)
        self._kept.prune(self.stored)

    def flush(self) -> None:
        """As in `contracts.SinkWriter`."""
        try:
            self._writer.flush()
        except PermanentError as error:
            self._recover(error)
            self.flush()
        self._kept.prune(self.stored)

    def close(self) -> None:
        """As in `contracts.SinkWriter`."""
        self._writer.close()
        self._letters.close()

    def carry_out(self, request: LetterRequest) -> LetterAnswer | None:
        """Do what the owner asks; None: not before changes have come that are still to come.

        Raises:
            FencedError: A newer claim exists.
            RetryableError: The flow stops meanwhile; what was done counts.
        """
        if request.created != self._claim.share.created:
            return LetterAnswer(gone=len(request.sequences))
        # After a crash what lies before a letter comes once more, and is to be applied first.
        if any(each > self._settled for each in self._parking.group(request.sequences)):
            return None
        # A letter that is refused again takes what is under way with it: that must be at hand.
        if self._lacking and request.action == "replay":
            return None
        self._letters.check()
        if request.action == "discard":
            return self._discard(request.sequences)
        self.flush()
        replay = Replay(self._parking, self._letters, self._reprocess, self._attempt)
        return replay.run(request.sequences)

    def _discard(self, sequences: Sequence[int]) -> LetterAnswer:
        known = [sequence for sequence in sequences if sequence in self._parking]
        self._letters.delete(known)
        for sequence in known:
            self._parking.remove(sequence)
        return LetterAnswer(discarded=len(known), gone=len(sequences) - len(known))

    def _attempt(self, changes: list[Delivered]) -> PermanentError | None:
        """Have letters stored once more; returns the refusal."""
        try:
            self._writer.replay(changes)
        except PermanentError as error:
            self._reopen()
            # Of a transaction that has not ended the writer held the beginning.
            for batch in self._kept.take():
                changes = [each for each in batch.changes if each.sequence > self._stored]
                self._give(Batch(batch.claim, changes, batch.upto, batch.complete, batch.origins))
            return error
        return None

    def _give(self, batch: Batch) -> None:
        """Hand a batch to the writer, and keep it until it is stored."""
        self._kept.add(batch)
        try:
            self._writer.write(batch)
        except PermanentError as error:
            self._recover(error)

    @property
    def _lacking(self) -> bool:
        """Whether more is not stored than is kept."""
        return self._kept.forgotten > self.stored

    def _sort(self, changes: list[Delivered]) -> list[Delivered]:
        """Put aside what is not to be written; returns the rest."""
        if not self._parking and not any(change.failed for change in changes):
            return changes
        parks = self._on_refusal != "skip"
        found = sort(self._parking, changes, self._kept.origins, parks=parks)
        if self._on_refusal == "stop":
            for letter in found.letters:
                if letter.state is State.FAILED:
                    raise _stopped(letter)
        self._put(found.letters)
        for topic, sequence in found.truncated:
            self._letters.mark(topic, sequence)
        return found.kept

    def _put(self, letters: list[Letter]) -> None:
        if letters:
            self._letters.put(letters)
            self._telling.put_aside(letters)

    def _reopen(self) -> None:
        self._stored = self.stored
        self._writer.close()
        self._writer = self._sink.open(self._claim)

    def _recover(self, error: PermanentError) -> None:
        """Write what is not stored in pieces, and put aside the changes that are refused."""
        if self._on_refusal == "stop" or not self._kept:
            raise error
        if self._lacking:
            self._read_again(error)
        last, changes = self._kept.last, self._kept.changes
        # Of a transaction that has not ended the sink has stored nothing yet.
        end = last.complete if self._whole else last.upto
        open_end = [change for change in changes if change.sequence > end]
        left = self._cut([change for change in changes if change.sequence <= end])
        if open_end and self._named(open_end, error):
            # It is given to the target anew, without the culprit, and still waits for its end.
            self._reopen()
            left = [unit for unit in left if unit[-1].sequence > self._stored]
            size = len(left)
        else:
            if not left:
                left, open_end = units(open_end), []
            if not left:
                raise error
            left, size = self._after_refusal(left, left, error)
        while left:
            piece = left[:size]
            sorted_ = self._sort(flat(piece))
            upto = piece[-1][-1].sequence
            try:
                if sorted_:
                    self._writer.write(Batch(self._claim, sorted_, upto, upto))
                    self._writer.flush()
            except PermanentError as again:
                left, size = self._after_refusal(left, piece, again)
            else:
                left = left[size:]
                size *= 2
        self._kept.take()
        self._give(Batch(self._claim, self._sort(open_end), last.upto, last.complete))

    def _read_again(self, error: PermanentError) -> NoReturn:
        """Put aside the culprit in a transaction that is no longer kept whole, and end the flow.

        The next one reads the transaction from its beginning, and knows the culprit for a letter.
        """
        culprits = self._named(self._kept.changes, error)
        if not culprits:
            raise _too_large(error) from error
        raise FatalError(
            "delivery.read_again",
            f"sequence {min(culprits)} was put aside: its transaction is too large to be kept",
            where=self._claim.share.stream,
            cure="start the flow again: it reads the transaction anew, without what was put aside",
        ) from error

    def _named(self, changes: list[Delivered], error: PermanentError) -> list[int]:
        """Put aside those that a refusal names; returns the sequences that it names."""
        reasons = {each.sequence: each for each in (error, *error.also)}
        named = [unit for unit in together(changes) if unit[0].sequence in reasons]
        self._refuse([(unit, reasons[unit[0].sequence]) for unit in named])
        return [unit[0].sequence for unit in named]

    def _cut(self, changes: list[Delivered]) -> list[Unit]:
        return transactions(changes) if self._whole else units(changes)

    def _after_refusal(
        self, left: list[Unit], piece: list[Unit], error: PermanentError
    ) -> tuple[list[Unit], int]:
        """Begin anew behind what is stored; put the culprit aside if it is known.

        Returns:
            What is left, and how much of it to try next.
        """
        self._reopen()
        left = [unit for unit in left if unit[-1].sequence > self._stored]
        piece = [unit for unit in piece if unit[-1].sequence > self._stored]
        # A target that names several names all: then what is left of the piece will do.
        size = max(1, len(piece) if error.also else len(piece) // 2)
        reasons = {each.sequence: each for each in (error, *error.also)}
        named = [unit for unit in together(flat(piece)) if unit[0].sequence in reasons]
        if not named and len(piece) == 1:
            smaller = units(piece[0])
            if len(smaller) > 1:
                return [*smaller, *left[1:]], max(1, len(smaller) // 2)
            named = together(piece[0])
        gone = self._refuse([(unit, reasons.get(unit[0].sequence, error)) for unit in named])
        if gone:
            rests = [[change for change in unit if change.sequence not in gone] for unit in left]
            left = [rest for rest in rests if rest]
        return left, size

    def _refuse(self, culprits: list[tuple[Unit, PermanentError]]) -> set[int]:
        """Make dead letters of changes that were refused; returns their sequences.

        Those that wait behind one of them are no letters yet: they are parked when their turn has
        come.
        """
        parks = self._on_refusal == "park"
        letters = []
        for unit, error in culprits:
            sequence = unit[0].sequence
            origin = self._kept.origins.get(sequence)
            known = [*unit, origin] if origin else unit
            topics, rows = {topic_of(change.subject) for change in known}, rows_of(known)
            if sequence in self._parking or (
                parks and self._parking.blocking(topics, rows, sequence)
            ):
                continue
            letter = refused(sequence, topic_of(unit[0].subject), rows, refusal(error), parks=parks)
            self._parking.add(sequence, letter.topic, letter.rows)
            letters.append(letter)
        self._put(letters)
        return {letter.sequence for letter in letters}


def _too_large(error: PermanentError) -> PermanentError:
    cure = (
        "correct what is refused; it cannot be put aside: the transaction is too large to be kept"
    )
    told = PermanentError(
        error.code,
        error.message,
        where=error.where,
        cure=f"{error.cure}; {cure}" if error.cure else cure,
        sequence=error.sequence,
    )
    told.also = error.also
    return told


def _stopped(letter: Letter) -> PermanentError:
    return PermanentError(
        letter.reason.code,
        letter.reason.message,
        where=letter.topic,
        cure="mend the pipeline, or let the sink put such changes aside: `on_refusal: park`",
        sequence=letter.sequence,
    )
