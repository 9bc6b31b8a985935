"""What a sink's bookkeeping holds of a share, wherever it is kept: its epoch, and its offsets.

Free of I/O: what a new claim makes of it, and what moving the offset makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from connectors.subjects import covers, stored_upto

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.contracts.sink import Share


class Offset(msgspec.Struct, frozen=True):
    """How far a subject is stored, and of which stream of that name."""

    created: str
    upto: int


class Entry(msgspec.Struct, frozen=True):
    """What is kept of a share."""

    epoch: int = 0
    subjects: dict[str, Offset] = {}


def moved(entry: Entry, share: Share, upto: int) -> Entry:
    """The entry once every subject of the share has everything up to a sequence."""
    subjects = dict(entry.subjects)
    for subject in share.subjects:
        found = subjects.get(subject)
        stored = found.upto if found and found.created == share.created else 0
        subjects[subject] = Offset(share.created, max(stored, upto))
    return Entry(entry.epoch, subjects)


def placed(entry: Entry, share: Share, upto: int) -> Entry:
    """The entry once its owner has set every subject of the share to a sequence.

    What earlier shares have left does not count any more. The epoch grows, so that no writer of an
    older claim stores anything.
    """
    offset = Offset(share.created, upto)
    return Entry(entry.epoch + 1, dict.fromkeys(share.subjects, offset))


def taken_over(entry: Entry, share: Share) -> tuple[dict[str, Offset], dict[str, int], str]:
    """What a new claim of a share stores, what it starts from, and what no longer counts."""
    rows = dict(entry.subjects)
    forgotten = "; ".join(
        f"{subject}: {row.upto} of stream {share.stream} created {row.created}"
        for subject, row in sorted(rows.items())
        if subject in share.subjects and row.created != share.created and row.upto
    )
    if share.end is not None:
        rows = {
            subject: Offset(row.created, min(row.upto, share.end))
            if row.created == share.created
            else row
            for subject, row in rows.items()
        }
    known = {s: row.upto for s, row in rows.items() if row.created == share.created}
    own: dict[str, int] = {}
    for subject in share.subjects:
        fresh = not any(covers(pattern, subject) for pattern in rows)
        # What a narrower share has not got yet must not be skipped.
        behind = [upto for narrow, upto in known.items() if covers(subject, narrow)]
        own[subject] = min([share.begin, *behind]) if fresh else stored_upto(known, subject)
    for subject in share.subjects:
        row = rows.get(subject)
        if row is None:
            # What a wider share has stored goes on counting by its own row.
            begin = own[subject] if not any(covers(p, subject) for p in rows) else 0
            rows[subject] = Offset(share.created, begin)
        elif row.created != share.created:
            rows[subject] = Offset(share.created, 0)
    return rows, counting(known, own), forgotten


def counting(known: Mapping[str, int], own: Mapping[str, int]) -> dict[str, int]:
    """The offsets of a claim (`contracts.Claim.offsets`).

    Args:
        known: What is stored of this stream, by subject.
        own: Where the share's own subjects stand.
    """
    ahead = {
        subject: upto
        for subject, upto in known.items()
        if any(covers(wide, subject) and upto > end for wide, end in own.items())
    }
    return {**own, **ahead}
