"""Claims and offsets of sinks whose target cannot hold them, in the bucket `CDC_OFFSETS`.

The bucket is a NATS key-value store (ADR-8) with one key a share, `<sink>.<stream>`. Every write
names the revision that it replaces, so a writer whose claim is not the newest stores nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from connectors.contracts import Claim
from connectors.errors import ConfigError, FencedError, GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.layout import ensure_bucket
from connectors.jetstream.refusals import Kind, classify
from connectors.subjects import covers, stored_upto

if TYPE_CHECKING:
    from connectors.contracts import Share
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec

BUCKET = "CDC_OFFSETS"
_STREAM = f"KV_{BUCKET}"
_SUBJECT = f"$KV.{BUCKET}."


class _Offset(msgspec.Struct, frozen=True):
    """How far a subject is stored, and of which stream of that name."""

    created: str
    upto: int


class _Entry(msgspec.Struct, frozen=True):
    """What the bucket holds of a share."""

    epoch: int = 0
    subjects: dict[str, _Offset] = {}


class KvOffsets:
    """Implements `contracts.OffsetStore` beside the streams themselves.

    Args:
        nats: Where they are.
    """

    def __init__(self, nats: NatsSpec) -> None:
        self._nats = nats
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[_Entry, int]] = {}
        self._ready = False

    def claim(self, share: Share) -> Claim:
        """Take the next epoch of a share and read where it stands; older claims are fenced."""
        with self._lock, connect(self._nats) as connection:
            self._prepare(connection)
            while True:
                entry, revision = _read(connection, share)
                subjects, offsets, forgotten = _taken_over(entry, share)
                # Revisions grow even where the key was deleted, so that no epoch comes twice.
                taken = _Entry(max(entry.epoch, revision) + 1, subjects)
                if written := _write(connection, share, taken, revision):
                    self._known[share.sink, share.stream] = taken, written
                    return Claim(share, taken.epoch, offsets, forgotten)

    def store(self, claim: Claim, upto: int) -> None:
        """Note that the target holds every message of the share up to `upto`; never goes back."""
        share = claim.share
        place = (share.sink, share.stream)
        with self._lock, connect(self._nats) as connection:
            while True:
                known = self._known.pop(place, None)
                entry, revision = known or _read(connection, share)
                if entry.epoch != claim.epoch:
                    raise FencedError(
                        "jetstream.offsets_fenced",
                        f"another writer of stream {share.stream} has taken over from epoch "
                        f"{claim.epoch}",
                        where=f"sink {share.sink}",
                        cure="none is needed: this one ends, the newer one goes on",
                    )
                subjects = dict(entry.subjects)
                for subject in share.subjects:
                    found = subjects.get(subject)
                    stored = found.upto if found and found.created == share.created else 0
                    subjects[subject] = _Offset(share.created, max(stored, upto))
                moved = _Entry(entry.epoch, subjects)
                if written := _write(connection, share, moved, revision):
                    self._known[place] = moved, written
                    return

    def _prepare(self, connection: Connection) -> None:
        if self._ready:
            return
        settings: dict[str, object] = {
            "max_msgs_per_subject": 1,
            "discard": "new",
            "num_replicas": self._nats.stream.replicas,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        }
        ensure_bucket(connection, _STREAM, [f"{_SUBJECT}>"], settings)
        self._ready = True


def _subject(share: Share) -> str:
    return f"{_SUBJECT}{share.sink}.{share.stream}"


def _read(connection: Connection, share: Share) -> tuple[_Entry, int]:
    try:
        stored = api.last_message(connection, _STREAM, _subject(share))
    except api.ApiError as error:
        raise ConfigError("jetstream.offsets", str(error), where=BUCKET) from error
    if stored is None:
        return _Entry(), 0
    if not stored.data:  # the mark of a deleted key
        return _Entry(), stored.seq
    try:
        return msgspec.json.decode(stored.data, type=_Entry), stored.seq
    except msgspec.MsgspecError as error:
        raise GapError(
            "jetstream.offsets_unreadable",
            f"what is stored of the sink's offsets cannot be read: {error}",
            where=_subject(share),
            cure=f"restore the bucket from a backup, or start anew: nats kv del {BUCKET} "
            f"{share.sink}.{share.stream}",
        ) from error


def _write(connection: Connection, share: Share, entry: _Entry, revision: int) -> int:
    """Replace the entry of a revision; returns the new one, or 0 when it is not the latest."""
    headers = f"Nats-Expected-Last-Subject-Sequence: {revision}\r\n"
    data = msgspec.json.encode(entry)
    ack = api.decode_ack(connection.request(_subject(share), data, headers=headers).payload)
    if ack.error is None:
        return ack.seq
    if classify(ack.error) is Kind.OVERTAKEN:
        return 0
    raise RetryableError(
        "jetstream.not_stored", f"{ack.error.description} ({ack.error.err_code})", where=BUCKET
    )


def _taken_over(entry: _Entry, share: Share) -> tuple[dict[str, _Offset], dict[str, int], str]:
    """What a new claim of a share stores, what it starts from, and what no longer counts."""
    rows = dict(entry.subjects)
    forgotten = "; ".join(
        f"{subject}: {row.upto} of stream {share.stream} created {row.created}"
        for subject, row in sorted(rows.items())
        if subject in share.subjects and row.created != share.created and row.upto
    )
    if share.end is not None:
        rows = {
            subject: _Offset(row.created, min(row.upto, share.end))
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
    ahead = {
        subject: upto
        for subject, upto in known.items()
        if any(covers(wide, subject) and upto > end for wide, end in own.items())
    }
    for subject in share.subjects:
        row = rows.get(subject)
        if row is None:
            # What a wider share has stored goes on counting by its own row.
            begin = own[subject] if not any(covers(p, subject) for p in rows) else 0
            rows[subject] = _Offset(share.created, begin)
        elif row.created != share.created:
            rows[subject] = _Offset(share.created, 0)
    return rows, own | ahead, forgotten
