"""Stores changes over several sessions at once: each row's changes stay in one lane, in order.

    changes ─ CRC-32 of the key modulo the lanes ─┬→ lane 0: rows, "<subject> 0/2" ─┬→ offset
                                                  └→ lane 1: rows, "<subject> 1/2" ─┘

Each lane stores an offset of its own with its rows, and the share's offset follows when all lanes
are done; what is left of a crash in between is known by the lanes' offsets (`offsets.Ahead`).
Changes whose order counts across rows go by the one way, as they do without lanes: truncates,
changes without a key or of one, several changes of one message, and tables with foreign keys.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import psycopg
from typing_extensions import override

from connectors.errors import FatalError, PermanentError, RetryableError
from connectors.postgres.target import offsets
from connectors.postgres.target.changer import Changer
from connectors.postgres.target.envelope import NULL, Envelope
from connectors.postgres.target.keys import Keys
from connectors.postgres.target.runs import cut_at_keys
from connectors.postgres.target.session import connect, is_transient, is_usable, roll_back
from connectors.postgres.target.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Batch, Claim
    from connectors.postgres.spec import SinkSpec
    from connectors.postgres.target.session import Session

# Fewer changes are stored faster by one transaction than by several and the offset's own.
LANE_CHANGES = 100
_NO_BEFORE = b'{"before":null,'


class LanesStore(Store):
    """One claim's way into a target over several sessions; see `Store`."""

    def __init__(self, spec: SinkSpec, claim: Claim) -> None:
        super().__init__(spec, claim)
        self._barrier = _Barrier()
        self._lanes = [_Lane(spec, claim, number) for number in range(spec.parallelism)]
        self._threads = ThreadPoolExecutor(spec.parallelism, f"postgres-lane-{claim.share.sink}")

    @property
    @override
    def sessions(self) -> list[Session]:
        return [*super().sessions, *(lane.session for lane in self._lanes if lane.session)]

    @override
    def close(self) -> None:
        for lane in self._lanes:
            lane.close()
        super().close()

    @override
    def dispose(self) -> None:
        self._threads.shutdown(wait=False)
        super().dispose()

    @override
    def write(self, batches: Sequence[Batch]) -> None:
        upto = batches[-1].upto
        changes = [change for batch in batches for change in self._new(batch.changes)]
        if len(changes) >= LANE_CHANGES * len(self._lanes):
            try:
                for alone, run in self._runs(changes):
                    end = upto if run[-1] is changes[-1] else run[-1].sequence
                    if not alone and len(run) >= LANE_CHANGES * len(self._lanes):
                        self._side_by_side(run, end)
                    else:
                        self._apply(run, self._storing(end), again=False)
                    self._count(end)
            except (PermanentError, psycopg.Error) as error:
                if isinstance(error, psycopg.Error) and is_transient(error):
                    self.close()  # whether a lane has committed is read when it is opened again
                    raise
            except RetryableError:
                self.close()
                raise
        # what is left: a refusal is looked for by the one way, which names the culprit
        super().write(batches)

    def _runs(self, changes: list[Delivered]) -> Iterator[tuple[bool, list[Delivered]]]:
        for piece in cut_at_keys(changes):
            yield from _runs(piece, self._barrier)

    def _side_by_side(self, run: list[Delivered], upto: int) -> None:
        """Store changes, each in its lane, and then the share's offset."""
        session = self._connected()
        self._changer.prepare(session, run)
        if self._changer.entangled(run):
            self._apply(run, self._storing(upto), again=False)
            return
        count = len(self._lanes)
        parts: list[list[Delivered]] = [[] for _ in self._lanes]
        for change in run:
            parts[offsets.lane_of(change.key, count)].append(change)
        under_way = [
            (lane, self._threads.submit(lane.store, part, count, upto))
            for lane, part in zip(self._lanes, parts, strict=True)
            if part
        ]
        errors: list[BaseException] = []
        for lane, future in under_way:
            error = future.exception()
            if error is None:
                self._ahead.put(self._claim.share, lane.number, count, upto)
            else:
                errors.append(error)
        if errors:
            raise min(errors, key=_urgency)
        self._apply([], self._storing(upto), again=False)


class _Lane:
    """A session that stores a part of the changes. Used by one thread at a time."""

    def __init__(self, spec: SinkSpec, claim: Claim, number: int) -> None:
        self._dsn, self._claim = spec.dsn, claim
        self._changer = Changer(spec)
        self.number = number
        self.session: Session | None = None

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    def store(self, changes: list[Delivered], count: int, upto: int) -> None:
        """Store changes together with the lane's offset."""
        session = self._open()
        try:
            self._changer.prepare(session, changes)
            session.execute(b"BEGIN; SET CONSTRAINTS ALL DEFERRED")
            offsets.hold_together(session, self._claim)
            self._changer.apply(session, changes)
            offsets.store_lane(session, self._claim, self.number, count, upto)
            session.execute(b"COMMIT")
        except (psycopg.Error, PermanentError, FatalError):
            roll_back(session)
            self._changer.forget()
            raise

    def _open(self) -> Session:
        if self.session is None or not is_usable(self.session):
            self.close()
            self.session = connect(self._dsn.get_secret_value(), self._claim.share.sink)
            offsets.enlist(self.session, self._claim)
        return self.session


class _Barrier:
    """Tells which changes must not overtake others, nor be overtaken."""

    def __init__(self) -> None:
        self._keys: dict[str, Keys] = {}
        self._decode = msgspec.json.Decoder(Envelope).decode

    def __call__(self, change: Delivered) -> bool:
        table = change.table
        if table is None or change.key is None:
            return True
        if change.envelope.startswith(_NO_BEFORE):
            return False
        try:
            envelope = self._decode(change.envelope)
            if envelope.op == "d" or memoryview(envelope.before) == NULL:
                return False
            keys = self._keys.get(table.hash)
            if keys is None:
                keys = self._keys[table.hash] = Keys(table)
            old, new = keys.read(envelope.before), keys.read(change.key)
        except msgspec.MsgspecError:
            return True  # it is refused where it is applied
        return keys.identity(old) != keys.identity(new)


def _runs(changes: list[Delivered], barrier: _Barrier) -> Iterator[tuple[bool, list[Delivered]]]:
    """Cut changes into runs that lanes can store (False), and into those between (True).

    Changes of one message stay together: it is one dead letter if one of them is refused.
    """
    run: list[Delivered] = []
    was = False
    for at, change in enumerate(changes):
        same = at > 0 and changes[at - 1].sequence == change.sequence
        twin = at + 1 < len(changes) and changes[at + 1].sequence == change.sequence
        alone = same or twin or barrier(change)
        if run and (alone is not was) and not same:
            yield was, run
            run = []
        was = alone
        run.append(change)
    if run:
        yield was, run


def _urgency(error: BaseException) -> int:
    """Which error of several lanes tells what is to be done."""
    if isinstance(error, FatalError):
        return 0
    if isinstance(error, RetryableError) or (
        isinstance(error, psycopg.Error) and is_transient(error)
    ):
        return 1
    return 2 if isinstance(error, PermanentError | psycopg.Error) else -1
