"""A stream, a target and a store of dead letters in memory, which lose nothing when a flow dies."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from connectors.contracts.changes import Column, Delivered, Failure, TableSchema
from connectors.contracts.sink import Batch, Claim, Share
from connectors.errors import PermanentError
from connectors.letters import LetterRequest, Outstanding, State
from connectors.subjects import topic_of
from dataflows.dead_letters import DeadLetterWriter
from dataflows.kept import KEPT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from connectors.errors import WaxtapError
    from connectors.letters import Letter, Reason
    from dataflows.configuration.options import OnRefusal

Names = Literal["none", "first", "all"]
Kind = Literal["transactions", "whole", "versions", "plain"]

SHARE = Share("warehouse", "CDC_shop", "2026-01-01T00:00:00Z", ("CDC.shop.>",))
TABLES = {
    name: TableSchema("shop", "public", name, (Column("id", "bigint", "number"),), ("id",))
    for name in "ab"
}


class Crash(BaseException):
    """The process dies here."""


def change(
    sequence: int,
    op: str = "u",
    key: int | None = 1,
    *,
    table: str = "a",
    before: int | None = None,
    transaction: str = "",
    last: bool = True,
    failed: bool = False,
) -> Delivered:
    """A change whose value is its own sequence."""
    row = {"id": key, "value": sequence}
    envelope = {
        "op": op,
        "before": None if before is None else {"id": before},
        "after": row if op in "cu" else None,
        "source": {"ts_ms": 1_000 + sequence},
        "ts_ms": sequence,
        "transaction": None,
    }
    return Delivered(
        sequence,
        f"CDC.shop.db.{table}.0",
        f"{sequence:020d}",
        None if op == "t" else f'{{"id":{key}}}',
        TABLES[table],
        transaction,
        last,
        json.dumps(envelope).encode(),
        failed=Failure("users", "filter.broken", "it is").encoded if failed else "",
    )


@dataclass
class World:
    """What outlives a flow.

    Attributes:
        kind: How the target works.
        names: Which changes the target names when it refuses some.
        refused: Sequences that the target refuses, or on which the pipeline fails.
        commits: The sequences of each transaction of the target.
        fuse: How many more steps are stored before the flow dies; None: it lives.
        applied: Sequences in the order in which the target took them, by row.
        most: Bytes of an open transaction that the flow keeps.
        deletes: Envelopes of the deletes that stood for a truncate.
    """

    kind: Kind = "transactions"
    names: Names = "first"
    stream: list[Delivered] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    rows: dict[tuple[str, str], tuple[int, int | None]] = field(default_factory=dict)
    applied: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    offset: int = 0
    replayed: set[int] = field(default_factory=set)
    letters: dict[int, Letter] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    again: list[tuple[int, str]] = field(default_factory=list)
    deletes: list[bytes] = field(default_factory=list)
    attempts: int = 0
    commits: list[list[int]] = field(default_factory=list)
    fuse: int | None = None
    most: int = KEPT_BYTES

    def step(self) -> None:
        """Something is about to be stored, or has just been."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise Crash

    def reprocess(self, letter: Delivered) -> list[Delivered]:
        """The pipelines as they are now."""
        if letter.failed and letter.sequence in self.refused:
            return [letter]
        return [letter._replace(failed="")]

    def writer(self, on_refusal: OnRefusal = "park") -> DeadLetterWriter:
        """What a new flow makes."""
        claim = Claim(SHARE, 1, {"CDC.shop.>": self.offset}, fence=1)
        return DeadLetterWriter(
            ModelSink(self), claim, ModelLetters(self), on_refusal, self.reprocess, self.most
        )

    def batch(self, first: int, count: int) -> Batch:
        """What a consumer reads behind `first`."""
        changes = [each for each in self.stream if each.sequence > first][:count]
        upto = changes[-1].sequence if changes else first
        complete = max(
            (
                c.sequence
                for c in self.stream
                if c.sequence <= upto and (c.last or not c.transaction)
            ),
            default=0,
        )
        return Batch(Claim(SHARE, 1, {}), changes, upto, complete)

    def expected(self) -> dict[tuple[str, str], int]:
        """The rows that the source has in the end."""
        rows: dict[tuple[str, str], int] = {}
        for each in self.stream:
            for row, value in effects(each):
                if row == "*":
                    rows = {at: there for at, there in rows.items() if at[0] != topic(each)}
                elif value is None:
                    rows.pop((topic(each), row), None)
                else:
                    rows[topic(each), row] = value
        return rows

    def visible(self) -> dict[tuple[str, str], int]:
        """The rows that the target has."""
        return {at: value for at, (_, value) in self.rows.items() if value is not None}

    def apply(self, each: Delivered) -> None:
        """Take a change for good."""
        versions = self.kind == "versions"
        for row, value in effects(each):
            if row == "*":
                for at, (version, _) in list(self.rows.items()):
                    if at[0] == topic(each) and (not versions or version < each.sequence):
                        self.rows[at] = (each.sequence, None)
                self.applied[topic(each), row].append(each.sequence)
                continue
            place = (topic(each), row)
            if not versions or self.rows.get(place, (0, None))[0] <= each.sequence:
                self.rows[place] = (each.sequence, value)
        # Deletes that stand for a truncate are nobody's changes.
        if each.key is None:
            return
        if b'"transaction"' in each.envelope:
            self.applied[topic(each), each.key].append(each.sequence)
        else:
            self.deletes.append(each.envelope)


def topic(each: Delivered) -> str:
    return topic_of(each.subject)


def effects(each: Delivered) -> Iterable[tuple[str, int | None]]:
    """Which rows a change sets, and to what."""
    envelope = json.loads(each.envelope)
    if envelope["op"] == "t":
        yield "*", None
        return
    assert each.key is not None
    before = envelope["before"]
    if envelope["op"] == "u" and before is not None:
        yield f'{{"id":{before["id"]}}}', None
    yield each.key, envelope["after"]["value"] if envelope["after"] else None


class ModelSink:
    """A `contracts.Sink` whose target is a `World`."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def whole_transactions(self) -> bool:
        return self._world.kind == "whole"

    def check(self) -> list[WaxtapError]:
        return []

    def claim(self, share: Share) -> Claim:
        return Claim(share, 1, {"CDC.shop.>": self._world.offset})

    def open(self, claim: Claim) -> ModelWriter:
        return ModelWriter(self._world)

    def offsets(self, share: Share) -> dict[str, int]:
        return dict.fromkeys(share.subjects, self._world.offset)

    def reset(self, share: Share, upto: int) -> None:
        raise AssertionError("no test of the letters resets an offset")


class ModelWriter:
    """Stores at a flush, or when a few batches wait; of no use after an error."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[Batch] = []
        self._broken = False
        self.stored = 0

    def write(self, batch: Batch) -> None:
        assert not self._broken
        self._waiting.append(batch)
        if len(self._waiting) > 3:
            self.flush()

    def flush(self) -> None:
        assert not self._broken
        changes = [change for batch in self._waiting for change in batch.changes]
        if not self._waiting:
            return
        last = self._waiting[-1]
        upto = last.complete if self._world.kind == "whole" else last.upto
        due = [each for each in changes if self._world.offset < each.sequence <= upto]
        self._take(due)
        left = [each for each in changes if each.sequence > upto]
        self._waiting = [Batch(last.claim, left, last.upto, last.complete)] if left else []
        if self._world.kind in ("versions", "plain"):
            self._world.step()
        self._world.offset = max(self._world.offset, upto)
        self.stored = max(self.stored, upto)
        self._world.step()
        # What is not due yet is given to the target as well, which keeps it back.
        if bad := [each for each in left if each.sequence in self._world.refused]:
            raise self._refusal(bad)

    def replay(self, changes: Sequence[Delivered]) -> None:
        self.flush()
        world = self._world
        assert all(each.sequence <= world.offset for each in changes)
        if world.kind in ("versions", "plain"):
            self._take(changes)
            return
        new = [each for each in changes if each.sequence not in world.replayed]
        self._take(new)
        world.replayed.update(each.sequence for each in new)
        world.step()

    def close(self) -> None:
        self._broken = True

    def _take(self, changes: Sequence[Delivered]) -> None:
        world = self._world
        world.attempts += 1
        assert not any(each.failed for each in changes)
        bad = [each for each in changes if each.sequence in world.refused]
        if world.kind in ("transactions", "whole"):
            if bad:
                raise self._refusal(bad)
            # Rows and offset are one step: nothing is between them.
            world.step()
            world.commits.append([each.sequence for each in changes])
            for each in changes:
                world.apply(each)
            return
        held: set[str] = set()
        for each in changes:
            rows = {row for row, _ in effects(each)}
            if each.sequence in world.refused or (world.kind == "plain" and held & (rows | {"*"})):
                held |= rows
                continue
            world.step()
            world.apply(each)
        if bad:
            raise self._refusal(bad)

    def _refusal(self, culprits: Sequence[Delivered]) -> PermanentError:
        self._broken = True
        names = self._world.names
        named = [each.sequence for each in culprits] if names != "none" else [0]
        first, *more = [
            PermanentError("model.refused", "no", where="a", sequence=each) for each in named
        ]
        first.also = tuple(more) if names == "all" else ()
        return first


class ModelLetters:
    """A `letters.LetterStore`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def load(self) -> Outstanding:
        letters = sorted(self._world.letters.values())
        return Outstanding(
            [(each.sequence, each.topic, each.rows) for each in letters],
            dict(self._world.truncated),
        )

    def put(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            self._world.step()
            self._world.letters[letter.sequence] = letter
            self._world.step()

    def mark(self, topic: str, sequence: int) -> None:
        self._world.step()
        self._world.truncated[topic] = sequence

    def get(self, sequences: Sequence[int]) -> list[Delivered | None]:
        stored = {each.sequence: each for each in self._world.stream}
        return [stored[each] if each in self._world.letters else None for each in sequences]

    def failed_again(self, sequence: int, reason: Reason) -> None:
        self._world.again.append((sequence, reason.code))
        letter = self._world.letters[sequence]
        self._world.letters[sequence] = letter._replace(state=State.FAILED, reason=reason)

    def delete(self, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            self._world.step()
            self._world.letters.pop(sequence, None)

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


def request(
    sequences: Iterable[int], action: Literal["replay", "discard"] = "replay"
) -> LetterRequest:
    return LetterRequest(action, SHARE.created, sorted(sequences))
