"""The sink's bookkeeping in its target: the index `waxtap-offsets`.

A document a share, `<sink>.<stream>`: its epoch, which grows with each claim, its offsets, and the
stream's generation at the claim. Every write names the document that it replaces
(`if_seq_no`, `if_primary_term`), so a writer whose claim is not the newest stores nothing.

A document a stream, `.<stream>`, which all sinks share: how often it has begun anew. A stream that
was deleted and made again counts from 1, and one that was truncated gives its last sequences again;
the generation stands above the sequence in documents' versions, so that these are newer all the
same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
from elasticsearch import ApiError

from connectors.claims import Entry, Offset, moved, placed, taken_over
from connectors.contracts.sink import Claim
from connectors.elasticsearch.client import Answer, ask, kind_of
from connectors.errors import ConfigError, FencedError, GapError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from connectors.contracts.sink import Share

INDEX = "waxtap-offsets"
_Row = TypeVar("_Row")
_SETTINGS = {
    "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
    "mappings": {"dynamic": False, "properties": {}},
}


_PRIVILEGES = ["create_index", "read", "index", "delete", "manage"]


class _Share(msgspec.Struct, frozen=True):
    epoch: int
    generation: int
    subjects: dict[str, Offset]


class _Stream(msgspec.Struct, frozen=True):
    created: str = ""
    end: int | None = None
    generation: int = 0


class _Stored(NamedTuple):
    """A document, and what names it as the one that is replaced; nothing before the first."""

    source: msgspec.Raw | None
    mark: str


class Bookkeeping:
    """Reads and writes claims and offsets. Raises the client's own errors where none is named.

    Args:
        client: To the target.
    """

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client
        self._known: tuple[_Share, str] | None = None

    def create(self) -> None:
        """Make the index unless it exists."""
        try:
            ask(self._client, "PUT", f"/{INDEX}", _SETTINGS)
        except ApiError as error:
            if kind_of(error) == "resource_already_exists_exception":
                return
            # Without the right to make indices an administrator's will do.
            if error.status_code != 403 or not self._exists():
                raise

    def check_usable(self) -> None:
        """Check, without writing, that the index can be made and used.

        A cluster without security has no privileges to ask for, and one that does not let us see
        its blocks is taken for one that has none.

        Raises:
            ConfigError: `elasticsearch.rights`.
        """
        self._read(".none")
        blocks = self._told("GET", "/_cluster/state/blocks").get("blocks")
        found = blocks.get("global") if isinstance(blocks, dict) else None
        for block in (found or {}).values():
            if {"write", "metadata_write"} & set(block.get("levels", ())):
                raise _unusable(str(block.get("description", "the cluster is blocked")))
        wanted = [{"names": [INDEX], "privileges": _PRIVILEGES}]
        answer = self._told("POST", "/_security/user/_has_privileges", {"index": wanted})
        granted = answer.get("index", {}).get(INDEX, {})
        if lacking := [name for name in _PRIVILEGES if granted.get(name) is False]:
            raise _unusable(f"the role lacks {', '.join(lacking)}")

    def _told(self, method: str, path: str, body: object = None) -> Answer:
        """What there is to know; nothing where the cluster does not tell it."""
        try:
            return ask(self._client, method, path, body)
        except ApiError as error:
            if error.status_code in (400, 403, 404, 405):
                return Answer()
            raise

    def claim(self, share: Share) -> Claim:
        """Take the next epoch of a share and read where it stands; older claims are fenced."""
        while True:
            entry, mark = self._entry(share)
            generation = self._generation(share, entry)
            subjects, offsets, forgotten = taken_over(entry, share)
            taken = _Share(entry.epoch + 1, generation, subjects)
            if self._write(_share_id(share), taken, mark):
                return Claim(share, taken.epoch, offsets, forgotten)

    def read(self, share: Share) -> dict[str, int]:
        """From where a claim would go on. The index need not exist."""
        return taken_over(self._entry(share)[0], share)[1]

    def reset(self, share: Share, upto: int) -> None:
        """Let the next claim go on behind `upto`; older claims are fenced.

        The stream's generation stays: other sinks may write documents of the same stream.
        """
        while True:
            entry, mark = self._entry(share)
            further = placed(entry, share, upto)
            generation = self._generation(share, entry)
            row = _Share(further.epoch, generation, further.subjects)
            if self._write(_share_id(share), row, mark):
                return

    def check(self, claim: Claim) -> int:
        """The stream's generation, provided that the claim is the newest.

        Raises:
            FencedError: A newer claim exists.
        """
        row, _ = self._current(claim)
        return row.generation

    def store(self, claim: Claim, upto: int) -> None:
        """Note that the target holds every message of the share up to `upto`; never goes back.

        Raises:
            FencedError: A newer claim exists.
        """
        while True:
            row, mark = self._known or self._current(claim)
            self._known = None
            further = moved(Entry(row.epoch, row.subjects), claim.share, upto)
            stored = _Share(row.epoch, row.generation, further.subjects)
            if written := self._write(_share_id(claim.share), stored, mark):
                self._known = stored, written
                return

    def _entry(self, share: Share) -> tuple[Entry, str]:
        """What is stored of a share, and the document's mark."""
        stored = self._read(_share_id(share))
        row = _decoded(stored, _Share, share) if stored.source is not None else None
        # A document that was deleted begins anew; the seconds since 1970 are above its epochs.
        entry = Entry(row.epoch, row.subjects) if row else Entry(int(time.time()))
        return entry, stored.mark

    def _current(self, claim: Claim) -> tuple[_Share, str]:
        stored = self._read(_share_id(claim.share))
        row = _decoded(stored, _Share, claim.share) if stored.source is not None else None
        if row is None or row.epoch != claim.epoch:
            raise FencedError(
                "elasticsearch.fenced",
                f"another writer of stream {claim.share.stream} has taken over from epoch "
                f"{claim.epoch}",
                where=f"sink {claim.share.sink}",
                cure="none is needed: this one ends, the newer one goes on",
            )
        return row, stored.mark

    def _generation(self, share: Share, entry: Entry) -> int:
        """Count the stream's lives: this one may have begun since the last claim."""
        name = f".{share.stream}"
        while True:
            stored = self._read(name)
            row = _decoded(stored, _Stream, share) if stored.source is not None else None
            if row is None:
                fresh = _Stream(share.created, share.end)
            else:
                end = row.end if share.end is None else share.end
                ahead = share.end is not None and any(
                    offset.upto > share.end
                    for offset in entry.subjects.values()
                    if offset.created == share.created
                )
                same = row.created == share.created
                if same and end == row.end and not ahead:
                    return row.generation
                fresh = _Stream(share.created, share.end, row.generation + 1)
            if self._write(name, fresh, stored.mark):
                return fresh.generation

    def _exists(self) -> bool:
        try:
            ask(self._client, "GET", f"/{INDEX}/_doc/.none")
        except ApiError as error:
            return error.status_code == 404 and kind_of(error) != "index_not_found_exception"
        return True

    def _read(self, name: str) -> _Stored:
        try:
            answer = ask(self._client, "GET", f"/{INDEX}/_doc/{quote(name, safe='')}")
        except ApiError as error:
            if error.status_code != 404:
                raise
            return _Stored(None, "op_type=create")
        source = msgspec.json.decode(answer.raw, type=dict[str, msgspec.Raw])["_source"]
        mark = f"if_seq_no={answer['_seq_no']}&if_primary_term={answer['_primary_term']}"
        return _Stored(source, mark)

    def _write(self, name: str, row: _Share | _Stream, mark: str) -> str:
        """Replace a document; the new one's mark, empty when the one of `mark` is not the last."""
        path = f"/{INDEX}/_doc/{quote(name, safe='')}?{mark}"
        try:
            answer = ask(self._client, "PUT", path, msgspec.json.encode(row))
        except ApiError as error:
            if error.status_code == 409:
                return ""
            raise
        return f"if_seq_no={answer['_seq_no']}&if_primary_term={answer['_primary_term']}"


def _unusable(reason: str) -> ConfigError:
    return ConfigError(
        "elasticsearch.rights",
        f"the index {INDEX} cannot be made or used: {reason}",
        where=INDEX,
        cure=f"lift the block, or give the role the privileges {', '.join(_PRIVILEGES)} on {INDEX} "
        "and on the indices of the sink",
    )


def _share_id(share: Share) -> str:
    return f"{share.sink}.{share.stream}"


def _decoded(stored: _Stored, kind: type[_Row], share: Share) -> _Row:
    try:
        return msgspec.json.decode(stored.source or b"", type=kind)
    except msgspec.MsgspecError as error:
        raise GapError(
            "elasticsearch.offsets_unreadable",
            f"what is stored of the sink's offsets cannot be read: {error}",
            where=f"{INDEX}, {_share_id(share)}",
            cure="restore the index from a backup, or delete the document: the sink starts anew",
        ) from error
