"""The sink's bookkeeping in its target: who may write a share, and how far it has come.

`waxtap.claims` has one row a share. Its `epoch` grows with each claim, and a writer holds the row
locked while it commits, so that a claim waits for the commit under way and no older one follows.
It also names the writer's server process: one that hangs in a transaction (its client was stopped)
is ended by the next claim.

`waxtap.offsets` has one row a subject, written in the transaction that writes the rows.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast
from zlib import crc32

import psycopg

from connectors.claims import Entry, Offset, counting, taken_over
from connectors.contracts.sink import Claim
from connectors.errors import FencedError, RetryableError
from connectors.postgres.target import replayed
from connectors.subjects import covers, stored_upto

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Share
    from connectors.postgres.target.session import Session

# Taken by whoever creates things in the target, so that two do not collide ("waxtap" in ASCII).
CREATION_LOCK = 0x776178746170
_CLAIM_TIMEOUT_S = 30.0
_LOCK_ROUND = b"SET LOCAL lock_timeout = '500ms'"

_EXISTS = (
    b"SELECT to_regclass('waxtap.claims') IS NOT NULL AND to_regclass('waxtap.offsets') IS NOT NULL"
    b" AND to_regclass('waxtap.replayed') IS NOT NULL"
)
_HAS_SCHEMA = b"SELECT to_regnamespace('waxtap') IS NOT NULL"
_TABLES = (
    b"CREATE TABLE IF NOT EXISTS waxtap.claims ("
    b" sink text, stream text, epoch bigint NOT NULL, backend_pid integer,"
    b" backend_start timestamptz, updated_at timestamptz NOT NULL DEFAULT now(),"
    b" PRIMARY KEY (sink, stream))",
    b"CREATE TABLE IF NOT EXISTS waxtap.offsets ("
    b" sink text, stream text, subject text, created text NOT NULL, seq bigint NOT NULL,"
    b" updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (sink, stream, subject))",
    replayed.TABLE,
)
# Touches no row, and needs the rights that the writers need.
_USES = (
    b"INSERT INTO waxtap.claims (sink, stream, epoch) SELECT '', '', 0 WHERE false",
    b"UPDATE waxtap.claims SET epoch = epoch WHERE false",
    b"INSERT INTO waxtap.offsets (sink, stream, subject, created, seq)"
    b" SELECT '', '', '', '', 0 WHERE false",
    b"UPDATE waxtap.offsets SET seq = seq WHERE false",
    b"DELETE FROM waxtap.offsets WHERE false",
)
_NEW_CLAIM = (
    b"INSERT INTO waxtap.claims (sink, stream, epoch) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING"
)
# pg_stat_activity still shows the same start: the pid has not been given to another process
_END_WRITER = (
    b"SELECT pg_terminate_backend(a.pid) FROM waxtap.claims AS c JOIN pg_stat_activity AS a"
    b" ON a.pid = c.backend_pid AND a.backend_start = c.backend_start"
    b" WHERE c.sink = $1 AND c.stream = $2 AND ($3::bigint IS NULL OR c.epoch = $3)"
    b" AND a.pid <> pg_backend_pid() AND pg_has_role(a.usesysid, 'USAGE')"
)
_TAKE = (
    b"UPDATE waxtap.claims SET epoch = epoch + 1, backend_pid = NULL, backend_start = NULL,"
    b" updated_at = now() WHERE sink = $1 AND stream = $2 RETURNING epoch"
)
_REGISTER = (
    b"UPDATE waxtap.claims SET backend_pid = pg_backend_pid(), backend_start ="
    b" (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid())"
    b" WHERE sink = $1 AND stream = $2 AND epoch = $3"
)
_HOLD = (
    b"SELECT 1 FROM waxtap.claims WHERE sink = $1 AND stream = $2 AND epoch = $3 FOR NO KEY UPDATE"
)
# Of several sessions of one writer; the claim's row keeps a newer claim waiting all the same.
_HOLD_TOGETHER = _HOLD.replace(b"FOR NO KEY UPDATE", b"FOR SHARE")
# A lane's session shows by this lock whose it is.
_ENLIST = b"SELECT pg_advisory_lock_shared($1::integer, $2::integer)"
_END_LANES = (
    b"SELECT pg_terminate_backend(a.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a"
    b" ON a.pid = l.pid AND a.datid = l.database AND a.datname = current_database()"
    b" WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid::bigint = $1"
    b" AND ($2::bigint IS NULL OR l.objid::bigint <= $2)"
    b" AND a.pid <> pg_backend_pid() AND pg_has_role(a.usesysid, 'USAGE')"
)
_READ = b"SELECT subject, created, seq FROM waxtap.offsets WHERE sink = $1 AND stream = $2"
_DELETE = b"DELETE FROM waxtap.offsets WHERE sink = $1 AND stream = $2"
_SHORTEN = (
    b"UPDATE waxtap.offsets SET seq = $4, updated_at = now()"
    b" WHERE sink = $1 AND stream = $2 AND created = $3 AND seq > $4"
)
_RESET = (
    b"INSERT INTO waxtap.offsets AS o (sink, stream, subject, created, seq)"
    b" VALUES ($1, $2, $3, $4, $5)"
    b" ON CONFLICT (sink, stream, subject) DO UPDATE SET created = EXCLUDED.created, seq = 0,"
    b" updated_at = now() WHERE o.created <> EXCLUDED.created"
)
_STORE = (
    b"INSERT INTO waxtap.offsets AS o (sink, stream, subject, created, seq)"
    b" SELECT $1, $2, subject, $4, $5 FROM unnest($3::text[]) AS subject"
    b" ON CONFLICT (sink, stream, subject) DO UPDATE SET created = EXCLUDED.created,"
    b" seq = CASE WHEN o.created = EXCLUDED.created THEN greatest(o.seq, EXCLUDED.seq)"
    b" ELSE EXCLUDED.seq END, updated_at = now()"
)


def create(session: Session) -> None:
    """Create the bookkeeping tables unless they exist; safe when several do it at once.

    Raises:
        psycopg.Error: The role may not create them (SQLSTATE 42501), or the connection was lost.
    """
    if _one(session, _EXISTS):
        return
    with session.transaction():
        session.execute(b"SELECT pg_advisory_xact_lock($1)", [CREATION_LOCK])
        # even IF NOT EXISTS wants the right to create schemas when it exists
        if not _one(session, _HAS_SCHEMA):
            session.execute(b"CREATE SCHEMA waxtap")
        for statement in _TABLES:
            session.execute(statement)


def check_rights(session: Session) -> None:
    """Check that the bookkeeping tables, which exist, may be used.

    Raises:
        psycopg.Error: They may not.
    """
    for statement in _USES:
        session.execute(statement)


def take(session: Session, share: Share) -> Claim:
    """Take the next epoch of a share, after which no older writer commits any more.

    Raises:
        RetryableError: `postgres.claim_blocked`: something else holds the claim's row.
        psycopg.Error: From the server.
    """
    names = (share.sink, share.stream)
    session.execute(_NEW_CLAIM, names)
    deadline = time.monotonic() + _CLAIM_TIMEOUT_S
    while True:
        session.execute(_END_WRITER, (*names, None))
        session.execute(_END_LANES, (_lock(share), None))
        try:
            with session.transaction():
                session.execute(_LOCK_ROUND)
                epoch = cast("int", _one(session, _TAKE, *names))
                offsets, forgotten = _take_over(session, share)
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise RetryableError(
                    "postgres.claim_blocked",
                    f"the claim of stream {share.stream} stays locked by another session",
                    where="waxtap.claims",
                    cure="see pg_locks for who holds it, and end that session",
                ) from None
        else:
            return Claim(share, epoch, offsets, forgotten)


def read(session: Session, share: Share) -> dict[str, int]:
    """From where a claim would go on. The tables need not exist.

    Raises:
        psycopg.Error: From the server.
    """
    found: dict[str, Offset] = {}
    if _one(session, _EXISTS):
        found = {subject: Offset(*row) for subject, row in _stored(session, share).items()}
    return taken_over(Entry(0, found), share)[1]


def place(session: Session, share: Share, upto: int) -> None:
    """Take the next epoch, and let the next claim go on behind `upto`.

    Letters of changes that will be given anew count as not replayed.

    Raises:
        RetryableError: As `take`.
        psycopg.Error: From the server.
    """
    claim = take(session, share)
    with session.transaction():
        hold(session, claim)
        session.execute(_DELETE, (share.sink, share.stream))
        store(session, claim, upto)
        replayed.forget(session, share, upto)


def register(session: Session, claim: Claim) -> dict[str, int]:
    """Make this session the claim's writer, and return what is stored for each subject.

    An earlier session of the same claim is ended first and its transaction waited for, so that the
    offsets tell for certain whether a COMMIT, whose answer was lost, has happened.

    Raises:
        FencedError: A newer claim exists.
        psycopg.Error: From the server.
    """
    share = claim.share
    session.execute(_END_WRITER, (share.sink, share.stream, claim.epoch))
    session.execute(_END_LANES, (_lock(share), claim.epoch))
    if session.execute(_REGISTER, (share.sink, share.stream, claim.epoch)).rowcount != 1:
        raise fenced(claim)
    return _counting(_stored(session, share), share)


def hold(session: Session, claim: Claim) -> None:
    """Inside a transaction: keep newer claims waiting until it ends.

    Raises:
        FencedError: A newer claim exists.
    """
    share = claim.share
    if session.execute(_HOLD, (share.sink, share.stream, claim.epoch)).rowcount != 1:
        raise fenced(claim)


def store(session: Session, claim: Claim, upto: int) -> None:
    """Inside a transaction: every subject of the share has everything up to a sequence."""
    share = claim.share
    session.execute(_STORE, (share.sink, share.stream, list(share.subjects), share.created, upto))


def enlist(session: Session, claim: Claim) -> None:
    """Make this session one of the claim's lanes, to be ended by whoever takes over."""
    session.execute(_ENLIST, (_lock(claim.share), claim.epoch))


def hold_together(session: Session, claim: Claim) -> None:
    """As `hold`, for sessions of one claim that do so at the same time."""
    share = claim.share
    if session.execute(_HOLD_TOGETHER, (share.sink, share.stream, claim.epoch)).rowcount != 1:
        raise fenced(claim)


def store_lane(session: Session, claim: Claim, lane: int, count: int, upto: int) -> None:
    """Inside a transaction: one lane of `count` has all of its changes up to a sequence."""
    share = claim.share
    subjects = [_lane_subject(subject, lane, count) for subject in share.subjects]
    session.execute(_STORE, (share.sink, share.stream, subjects, share.created, upto))


def lane_of(key: str | None, count: int) -> int:
    """The lane in which a row's changes go."""
    return crc32((key or "").encode()) % count


class Ahead:
    """What lanes have stored beyond the share's offset, perhaps of another number of lanes."""

    def __init__(self, rows: dict[str, int]) -> None:
        self._rows = {}
        for name, seq in rows.items():
            subject, _, place = name.partition(" ")
            lane, _, count = place.partition("/")
            self._rows[subject, int(lane), int(count)] = seq
        self.highest = max(self._rows.values(), default=0)

    def put(self, share: Share, lane: int, count: int, upto: int) -> None:
        """Note what a lane has stored."""
        for subject in share.subjects:
            self._rows[subject, lane, count] = upto
        self.highest = max(self.highest, upto)

    def has(self, change: Delivered) -> bool:
        """Whether a lane has stored the change."""
        return any(
            change.sequence <= seq
            and lane_of(change.key, count) == lane
            and covers(subject, change.subject)
            for (subject, lane, count), seq in self._rows.items()
        )


def ahead(session: Session, claim: Claim) -> Ahead:
    """Read what lanes of this or an earlier writer have stored."""
    share = claim.share
    return Ahead(
        {
            subject: seq
            for subject, (created, seq) in _all(session, share).items()
            if " " in subject and created == share.created
        }
    )


def fenced(claim: Claim) -> FencedError:
    """The error of a writer whose claim is not the newest."""
    return FencedError(
        "postgres.fenced",
        f"another writer of stream {claim.share.stream} has taken over from epoch {claim.epoch}",
        where=f"sink {claim.share.sink}",
        cure="none is needed: this one ends, the newer one goes on",
    )


def _take_over(session: Session, share: Share) -> tuple[dict[str, int], str]:
    if share.end is not None:
        session.execute(_SHORTEN, (share.sink, share.stream, share.created, share.end))
        replayed.forget(session, share, share.end)
    found = {subject: Offset(*row) for subject, row in _stored(session, share).items()}
    rows, offsets, forgotten = taken_over(Entry(0, found), share)
    for subject in share.subjects:
        if rows[subject] != found.get(subject):
            row = (subject, share.created, rows[subject].upto)
            session.execute(_RESET, (share.sink, share.stream, *row))
    return offsets, forgotten


def _counting(rows: dict[str, tuple[str, int]], share: Share) -> dict[str, int]:
    """What the rows, some of which earlier shares have left, tell of a share (`Claim.offsets`)."""
    stored = {subject: seq for subject, (created, seq) in rows.items() if created == share.created}
    return counting(stored, {subject: stored_upto(stored, subject) for subject in share.subjects})


def _stored(session: Session, share: Share) -> dict[str, tuple[str, int]]:
    return {name: row for name, row in _all(session, share).items() if " " not in name}


def _all(session: Session, share: Share) -> dict[str, tuple[str, int]]:
    cursor = session.execute(_READ, (share.sink, share.stream))
    rows = cast("list[tuple[str, str, int]]", cursor.fetchall())
    return {subject: (created, seq) for subject, created, seq in rows}


def _lane_subject(subject: str, lane: int, count: int) -> str:
    """No subject of NATS has a space, so that a lane's row is told from the share's."""
    return f"{subject} {lane}/{count}"


def _lock(share: Share) -> int:
    """31 bits for the share: another one with the same is ended once more, and comes back."""
    return crc32(f"{share.sink} {share.stream}".encode()) >> 1


def _one(session: Session, query: bytes, *values: object) -> object:
    row = session.execute(query, values).fetchone()
    return row[0] if row else None
