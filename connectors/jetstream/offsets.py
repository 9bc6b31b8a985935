"""Claims and offsets of sinks whose target cannot hold them, in the bucket `CDC_OFFSETS`.

The bucket is a NATS key-value store (ADR-8) with one key a share, `<sink>.<stream>`. Every write
names the revision that it replaces, so a writer whose claim is not the newest stores nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from connectors.claims import Entry, moved, placed, taken_over
from connectors.contracts.sink import Claim
from connectors.errors import ConfigError, FencedError, GapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.key_values import ensure_key_values, replace

if TYPE_CHECKING:
    from connectors.contracts.sink import Share
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec

BUCKET = "CDC_OFFSETS"
_STREAM = f"KV_{BUCKET}"
_SUBJECT = f"$KV.{BUCKET}."


class KvOffsets:
    """Implements `contracts.OffsetStore` beside the streams themselves.

    Args:
        nats: Where they are.
    """

    def __init__(self, nats: NatsSpec) -> None:
        self._nats = nats
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[Entry, int]] = {}
        self._ready = False

    def claim(self, share: Share) -> Claim:
        """Take the next epoch of a share and read where it stands; older claims are fenced."""
        with self._lock, connect(self._nats) as connection:
            self._prepare(connection)
            while True:
                entry, revision = _read(connection, share)
                subjects, offsets, forgotten = taken_over(entry, share)
                # Revisions grow even where the key was deleted, so that no epoch comes twice.
                taken = Entry(max(entry.epoch, revision) + 1, subjects)
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
                further = moved(entry, share, upto)
                if written := _write(connection, share, further, revision):
                    self._known[place] = further, written
                    return

    def read(self, share: Share) -> dict[str, int]:
        """From where a claim would go on."""
        with connect(self._nats) as connection:
            if api.stream_info(connection, _STREAM) is None:
                return taken_over(Entry(), share)[1]
            entry, _ = _read(connection, share)
        return taken_over(entry, share)[1]

    def reset(self, share: Share, upto: int) -> None:
        """Let the next claim go on behind `upto`; older claims are fenced."""
        with self._lock, connect(self._nats) as connection:
            self._prepare(connection)
            self._known.pop((share.sink, share.stream), None)
            while True:
                entry, revision = _read(connection, share)
                latest = Entry(max(entry.epoch, revision), entry.subjects)
                if _write(connection, share, placed(latest, share, upto), revision):
                    return

    def _prepare(self, connection: Connection) -> None:
        if self._ready:
            return
        ensure_key_values(connection, BUCKET, self._nats.stream.replicas)
        self._ready = True


def _subject(share: Share) -> str:
    return f"{_SUBJECT}{share.sink}.{share.stream}"


def _read(connection: Connection, share: Share) -> tuple[Entry, int]:
    try:
        stored = api.last_message(connection, _STREAM, _subject(share))
    except api.ApiError as error:
        raise ConfigError("jetstream.offsets", str(error), where=BUCKET) from error
    if stored is None:
        return Entry(), 0
    if not stored.data:  # the mark of a deleted key
        return Entry(), stored.seq
    try:
        return msgspec.json.decode(stored.data, type=Entry), stored.seq
    except msgspec.MsgspecError as error:
        raise GapError(
            "jetstream.offsets_unreadable",
            f"what is stored of the sink's offsets cannot be read: {error}",
            where=_subject(share),
            cure=f"restore the bucket from a backup, or start anew: nats kv del {BUCKET} "
            f"{share.sink}.{share.stream}",
        ) from error


def _write(connection: Connection, share: Share, entry: Entry, revision: int) -> int:
    """Replace the entry of a revision; returns the new one, or 0 when it is not the latest."""
    key, data = f"{share.sink}.{share.stream}", msgspec.json.encode(entry)
    return replace(connection, BUCKET, key, data, revision) or 0
