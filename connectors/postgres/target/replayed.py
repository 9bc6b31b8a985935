"""Which dead letters the target has been given again, so that each of them counts once.

`waxtap.replayed` has one row for each, written in the transaction that applies it. A message may
stand for several rows (a transform made several of it, or a truncate had to wait for some of them),
so that a letter is named by its sequence and by the row that it is about.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Claim, Share
    from connectors.postgres.target.session import Session

TABLE = (
    b"CREATE TABLE IF NOT EXISTS waxtap.replayed ("
    b" sink text, stream text, created text, seq bigint, part bigint,"
    b" replayed_at timestamptz NOT NULL DEFAULT now(),"
    b" PRIMARY KEY (sink, stream, created, seq, part))"
)
_KNOWN = (
    b"SELECT seq, part FROM waxtap.replayed"
    b" WHERE sink = $1 AND stream = $2 AND created = $3 AND seq = ANY ($4::bigint[])"
)
_REMEMBER = (
    b"INSERT INTO waxtap.replayed (sink, stream, created, seq, part)"
    b" SELECT $1, $2, $3, l.seq, l.part FROM unnest($4::bigint[], $5::bigint[]) AS l (seq, part)"
)
_FORGET = (
    b"DELETE FROM waxtap.replayed"
    b" WHERE sink = $1 AND stream = $2 AND created = $3 AND seq > $4::bigint"
)


def unknown(session: Session, claim: Claim, letters: Iterable[Delivered]) -> list[Delivered]:
    """Return those of the letters that the target has not been given yet, in their order."""
    letters = list(letters)
    sequences = sorted({letter.sequence for letter in letters})
    cursor = session.execute(_KNOWN, (*_place(claim.share), sequences))
    known = set(cast("list[tuple[int, int]]", cursor.fetchall()))
    return [letter for letter in letters if _name(letter) not in known]


def remember(session: Session, claim: Claim, letters: Iterable[Delivered]) -> None:
    """Inside a transaction: note that the letters have been applied."""
    names = list(dict.fromkeys(_name(letter) for letter in letters))
    columns = ([sequence for sequence, _ in names], [part for _, part in names])
    session.execute(_REMEMBER, (*_place(claim.share), *columns))


def forget(session: Session, share: Share, end: int) -> None:
    """Inside a transaction: sequences behind `end` will be given to other messages."""
    session.execute(_FORGET, (*_place(share), end))


def _place(share: Share) -> tuple[str, str, str]:
    return share.sink, share.stream, share.created


def _name(letter: Delivered) -> tuple[int, int]:
    table = letter.table
    row = [table and table.schema, table and table.name, letter.key]
    digest = blake2b(repr(row).encode(), digest_size=8).digest()
    return letter.sequence, int.from_bytes(digest, "big", signed=True)
