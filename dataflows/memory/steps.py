"""Steps of a pipeline that remember rows: dedupe, sample, throttle, in this order.

None of them ever drops the change that makes a row appear or disappear (create, read, delete, an
update that changes the key, truncate): the rows of a target stay those of the source, only their
images may be older. What a step has forgotten, or never knew, it keeps.

All of them are functions of the changes alone: given the same ones again they decide the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import structlog

from dataflows.memory.fingerprints import Fate, Fingerprint, Fingerprints
from dataflows.memory.rows import WIDTH, Packed, RowMemory

if TYPE_CHECKING:
    from connectors.contracts.changes import Change, TableSchema
    from dataflows.memory.options import DedupeSpec, SampleSpec, StatefulSpec, ThrottleSpec

log = structlog.get_logger()

# Of dedupe, sample and throttle; None for a step that is not there or remembers nothing.
PackedSteps: TypeAlias = tuple[Packed | None, Packed | None, Packed | None]

EMPTY: PackedSteps = (None, None, None)
_COUNT_BITS = 20
_COUNT_MASK = (1 << _COUNT_BITS) - 1
_STAYS = bytes(WIDTH)


class Dedupe:
    """Drops an update whose image is that of the row's last change that was kept.

    Args:
        spec: Which columns count, how many rows are remembered.
        packed: Of an earlier one.
    """

    def __init__(self, spec: DedupeSpec, packed: Packed | None = None) -> None:
        self.memory = RowMemory(spec.keys, packed)

    def keeps(self, change: Fingerprint) -> bool:
        """Whether a change of a row is to be kept; `note` is called for those that are."""
        return (
            change.fate is Fate.BEGINS
            or not change.image
            or self.memory.recall(change.table, change.row) != change.image
        )

    def note(self, change: Fingerprint) -> None:
        """Remember the image of a change that is kept."""
        if change.image:
            self.memory.store(change.table, change.row, change.image)
        else:
            self.memory.forget(change.table, change.row)


class SampleEvery:
    """Keeps the first change of a row, and each so manieth update behind it.

    Args:
        every: Two or more.
        keys: How many rows are remembered.
        packed: Of an earlier one.
    """

    def __init__(self, every: int, keys: int, packed: Packed | None = None) -> None:
        self.memory = RowMemory(keys, packed)
        self._every = every

    def keeps(self, change: Fingerprint) -> bool:
        """Whether a change of a row is to be kept. To be asked once for each."""
        dropped = None
        if change.fate is not Fate.BEGINS:
            dropped = self.memory.recall(change.table, change.row)
        behind = 0 if dropped is None else (int.from_bytes(dropped, "little") + 1) % self._every
        self.memory.store(change.table, change.row, behind.to_bytes(WIDTH, "little"))
        return behind == 0


class SampleShare:
    """Keeps all changes of some rows, chosen by a hash of topic and key.

    A row that was chosen and is given a key that is not stays with them until it ends.

    Args:
        share: Of the rows, between 0 and 1.
        keys: How many rows are remembered that stay although their new key is not chosen.
        packed: Of an earlier one.
    """

    def __init__(self, share: float, keys: int, packed: Packed | None = None) -> None:
        self.memory = RowMemory(keys, packed)
        self._below = round(share * (1 << 8 * WIDTH))

    def keeps(self, change: Fingerprint) -> bool:
        """Whether a change belongs to a row that was chosen."""
        if self._chosen(change.row):
            return True
        table = change.table
        former = change.former
        if former and (self._chosen(former) or self.memory.recall(table, former) is not None):
            self.memory.store(table, change.row, _STAYS)
            return True
        return self.memory.recall(table, change.row) is not None

    def _chosen(self, row: bytes) -> bool:
        return int.from_bytes(row, "big") < self._below


class Throttle:
    """Keeps at most so many changes of a row in each interval of the source's time.

    Intervals begin at the multiples of their length since 1970. A time that lies before the row's
    present interval, as concurrent transactions and clocks that are set make it, counts into that.

    Args:
        spec: How many, in which interval, and how many rows are remembered.
        packed: Of an earlier one.
    """

    def __init__(self, spec: ThrottleSpec, packed: Packed | None = None) -> None:
        self.memory = RowMemory(spec.keys, packed)
        self._most = spec.changes
        self._length = round(spec.every.total_seconds() * 1000)

    def keeps(self, change: Fingerprint) -> bool:
        """Whether a change of a row is to be kept. To be asked once for each."""
        interval, count = change.at // self._length, 0
        known = None
        if change.fate is not Fate.BEGINS:
            known = self.memory.recall(change.table, change.row)
        if known is not None:
            number = int.from_bytes(known, "little")
            if number >> _COUNT_BITS >= interval:
                interval, count = number >> _COUNT_BITS, number & _COUNT_MASK
        if count >= self._most:
            return False
        number = interval << _COUNT_BITS | count + 1
        self.memory.store(change.table, change.row, number.to_bytes(WIDTH, "little"))
        return True


class StatefulSteps:
    """The stateful steps of one pipeline, for the changes of one stream in their order.

    Args:
        name: The pipeline's.
        spec: Which steps there are.
        packed: What they remembered before.

    Attributes:
        dropper: Which of them dropped the latest change that was dropped.
    """

    def __init__(self, name: str, spec: StatefulSpec, packed: PackedSteps = EMPTY) -> None:
        dedupe, sample, throttle = packed
        self._name = name
        self.dropper = ""
        self._dedupe = Dedupe(spec.dedupe, dedupe) if spec.dedupe else None
        self._sample = _sample(spec.sample, sample) if spec.sample else None
        self._throttle = Throttle(spec.throttle, throttle) if spec.throttle else None
        self._memories = [
            step.memory for step in (self._dedupe, self._sample, self._throttle) if step
        ]
        self._fingerprints = Fingerprints(
            (spec.dedupe.fields or ()) if spec.dedupe else (),
            images=spec.dedupe is not None,
            times=spec.throttle is not None,
            lacking=self._warn,
        )

    def keeps(self, subject: str, change: Change, origin: Change, *, past: bool = False) -> bool:
        """Whether a change is to be stored at `subject`. To be asked once for each, in order.

        Args:
            subject: Where it is to be stored.
            change: As it is behind the transforms.
            origin: What the source had given.
            past: It was given to the steps before, by a run whose memory may be another one; the
                stream may hold it or not, whatever the answer is now.
        """
        seen = self._fingerprints.take(subject, change, origin)
        if seen.fate is Fate.NO_ROW:
            if change.failed and self._dedupe:
                # Nobody can tell whose row it is, and what a replay will make of it.
                self._dedupe.memory.clear()
            return True
        if seen.fate is Fate.TABLE_ENDS:
            for memory in self._memories:
                memory.forget_table(seen.table, seen.row)
            return True
        if seen.fate is Fate.ENDS:
            kept = not isinstance(self._sample, SampleShare) or self._sample.keeps(seen)
            if not kept:
                self.dropper = "sample"
            self._forget(seen.table, seen.row)
            return kept
        if self._dedupe and not self._dedupe.keeps(seen):
            self.dropper = "dedupe"
            return False
        kept = self._in_measure(seen)
        if self._dedupe and kept:
            self._dedupe.note(seen)
        elif self._dedupe and past:
            self._dedupe.memory.forget(seen.table, seen.row)
        if seen.former:
            self._forget(seen.table, seen.former)
        return kept

    def pack(self) -> PackedSteps:
        """What is remembered, to be given to a later one."""
        dedupe, sample, throttle = self._dedupe, self._sample, self._throttle
        return (
            dedupe.memory.pack() if dedupe else None,
            sample.memory.pack() if sample else None,
            throttle.memory.pack() if throttle else None,
        )

    def _in_measure(self, seen: Fingerprint) -> bool:
        if self._sample and not self._sample.keeps(seen):
            self.dropper = "sample"
            return False
        if self._throttle and not self._throttle.keeps(seen):
            self.dropper = "throttle"
            return False
        return True

    def _forget(self, table: bytes, row: bytes) -> None:
        for memory in self._memories:
            memory.forget(table, row)

    def _warn(self, table: TableSchema, lacking: list[str]) -> None:
        log.warning(
            "dedupe lets every change of this table pass, which lacks some of the fields",
            pipeline=self._name,
            table=f"{table.schema}.{table.name}",
            lacking=lacking,
        )


def _sample(spec: SampleSpec, packed: Packed | None) -> SampleEvery | SampleShare:
    if spec.every is not None:
        return SampleEvery(spec.every, spec.keys, packed)
    return SampleShare(spec.share or 0.0, spec.keys, packed)
