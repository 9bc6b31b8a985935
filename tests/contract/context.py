"""What a flow gives to a source or a sink, for tests of one alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connectors.contracts.sink import Claim, SinkContext
from connectors.contracts.source import SourceContext
from connectors.errors import FencedError, GapError
from connectors.jetstream.inbox import JetStreamInbox
from connectors.jetstream.spec import NatsSpec
from connectors.subjects import covers, stored_upto

if TYPE_CHECKING:
    from typing import BinaryIO

    from connectors.contracts.backfills import Backfills
    from connectors.contracts.inbox import Inbox
    from connectors.contracts.sink import OffsetStore, Share
    from connectors.contracts.source import Checkpoint, StateStore


@dataclass
class MemoryOffsets:
    """An offset store that lives as long as its test."""

    _epochs: dict[tuple[str, str], int] = field(default_factory=dict)
    _stored: dict[tuple[str, str], dict[str, tuple[str, int]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, share: Share) -> Claim:
        place = (share.sink, share.stream)
        with self._lock:
            epoch = self._epochs[place] = self._epochs.get(place, 0) + 1
            rows = self._stored.setdefault(place, {})
            forgotten = "; ".join(
                f"{subject}: {upto} of stream {share.stream} created {created}"
                for subject, (created, upto) in rows.items()
                if created != share.created and upto
            )
            for subject, (created, upto) in list(rows.items()):
                if created != share.created:
                    del rows[subject]
                elif share.end is not None:
                    rows[subject] = (created, min(upto, share.end))
            for subject in share.subjects:
                if not forgotten and not any(covers(known, subject) for known in rows):
                    rows[subject] = (share.created, share.begin)
            known = {subject: upto for subject, (_, upto) in rows.items()}
            own = {subject: stored_upto(known, subject) for subject in share.subjects}
            return Claim(share, epoch, known | own, forgotten)

    def store(self, claim: Claim, upto: int) -> None:
        share = claim.share
        with self._lock:
            if self._epochs[share.sink, share.stream] != claim.epoch:
                raise FencedError("test.fenced", "a newer claim exists")
            rows = self._stored[share.sink, share.stream]
            for subject in share.subjects:
                _, stored = rows.get(subject, ("", 0))
                rows[subject] = (share.created, max(stored, upto))

    def read(self, share: Share) -> dict[str, int]:
        with self._lock:
            rows = self._stored.get((share.sink, share.stream), {})
            known = {name: upto for name, (made, upto) in rows.items() if made == share.created}
            return {subject: stored_upto(known, subject) for subject in share.subjects}

    def reset(self, share: Share, upto: int) -> None:
        place = (share.sink, share.stream)
        with self._lock:
            self._epochs[place] = self._epochs.get(place, 0) + 1
            self._stored[place] = dict.fromkeys(share.subjects, (share.created, upto))


def sink_context(
    stop: threading.Event | None = None, offsets: OffsetStore | None = None
) -> SinkContext:
    """A context whose offsets are kept in memory unless others are given."""
    return SinkContext(stop or threading.Event(), offsets or MemoryOffsets())


@dataclass
class MemoryState:
    """A source's state that lives as long as its test."""

    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, data: BinaryIO) -> None:
        self.files[name] = data.read()

    def get(self, name: str, into: BinaryIO) -> None:
        if name not in self.files:
            raise GapError("test.gone", "there is no such name", where=name)
        into.write(self.files[name])

    def names(self) -> list[str]:
        return list(self.files)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)


def source_context(
    stop: threading.Event | None = None,
    state: StateStore | None = None,
    inbox: Inbox | None = None,
    past: Checkpoint | None = None,
    backfills: Backfills | None = None,
    *,
    ddl: bool = False,
) -> SourceContext:
    """A context whose state is kept in memory unless another store is given.

    Where no inbox is given, there is no NATS server for one.
    """
    nowhere = JetStreamInbox(NatsSpec(url=("nats://127.0.0.1:1",)), "nowhere")
    return SourceContext(
        stop or threading.Event(), state or MemoryState(), inbox or nowhere, past, backfills, ddl
    )
