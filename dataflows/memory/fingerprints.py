"""What the stateful steps see of a change: whose row it is, what befalls it, its image, its time.

A row is named by its topic and its key. Its image is a hash of its columns' bytes, or of some of
them, as they stand in the envelope. Only what the steps need is decoded, and nothing at all where
they need neither images nor times.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.contracts.changes import UnwrappedChange
from connectors.subjects import topic_of
from dataflows.failing import UNREADABLE
from dataflows.memory.rows import short_hash
from dataflows.transforms.record import key_of_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from connectors.contracts.changes import Change, TableSchema

_NOTHING = b""
_NO_BEFORE = b'{"before":null,'
# Of how many subjects the topic is remembered.
_TOPICS = 10_000


class Fate(Enum):
    """What a change does to its row."""

    # The row begins to be: created, read, moved here from another key, or nobody can tell.
    BEGINS = auto()
    # It has another image, or still the same.
    GOES_ON = auto()
    ENDS = auto()
    # All rows of the table end.
    TABLE_ENDS = auto()
    # A message, a change without a key, or one on which a step has failed.
    NO_ROW = auto()


class Fingerprint(NamedTuple):
    """A change as the stateful steps see it.

    Attributes:
        fate: What it does to its row.
        table: Names its table.
        row: Names its row; for `TABLE_ENDS` what emptied the table; empty for `NO_ROW`.
        image: Of the columns that are compared; empty: it has none.
        former: Names the row that it was before an update changed its key; empty: the same.
        at: When it was committed in the source, Unix time in milliseconds; 0: not asked for.
    """

    fate: Fate
    table: bytes = _NOTHING
    row: bytes = _NOTHING
    image: bytes = _NOTHING
    former: bytes = _NOTHING
    at: int = 0


class _Before(msgspec.Struct):
    before: dict[str, msgspec.Raw] | None = None


class _Source(msgspec.Struct):
    ts_ms: int


class _Origin(msgspec.Struct):
    source: _Source


class _After(msgspec.Struct):
    after: msgspec.Raw


class _Table(NamedTuple):
    name: bytes
    has_images: bool


_decode_before = msgspec.json.Decoder(_Before).decode
_decode_origin = msgspec.json.Decoder(_Origin).decode
_decode_after = msgspec.json.Decoder(_After).decode


class Fingerprints:
    """Takes the fingerprints of one pipeline's changes.

    Args:
        columns: Those that an image is taken of; empty: all.
        images: Whether the steps need images.
        times: Whether they need times.
        lacking: Told once of each table that lacks some of the columns: its rows have no images.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        images: bool,
        times: bool,
        lacking: Callable[[TableSchema, list[str]], None],
    ) -> None:
        self._columns = tuple(dict.fromkeys(columns))
        self._images, self._times = images, times
        self._lacking = lacking
        self._row, self._envelope = _decoders(self._columns)
        self._tables: dict[str, _Table] = {}
        self._topics: dict[str, bytes] = {}
        self._schema: TableSchema | None = None
        self._table = _Table(_NOTHING, False)

    def take(self, subject: str, change: Change, origin: Change) -> Fingerprint:
        """The fingerprint of a change.

        Args:
            subject: Where it is to be stored.
            change: As it is behind the transforms.
            origin: What the source had given.
        """
        schema = change.table
        if schema is None or change.failed:
            return Fingerprint(Fate.NO_ROW)
        # Neighbours mostly share a table.
        if schema is not self._schema:
            self._schema, self._table = schema, self._look_up(schema)
        table, has_images = self._table
        if change.op == "t":
            return Fingerprint(Fate.TABLE_ENDS, table, short_hash(change.position.encode()))
        if change.key is None:
            return Fingerprint(Fate.NO_ROW)
        topic = self._topic(subject)
        row = short_hash(topic + change.key.encode())
        if change.op == "d":
            return Fingerprint(Fate.ENDS, table, row)
        try:
            fate, former = self._past(change, schema, topic)
            image = self._image(change) if has_images else _NOTHING
            at = _decode_origin(origin.envelope).source.ts_ms if self._times else 0
        except UNREADABLE:
            # Whatever it is now, nobody can say that it was the same before.
            return Fingerprint(Fate.BEGINS, table, row)
        return Fingerprint(fate, table, row, image, former, at)

    def _past(self, change: Change, schema: TableSchema, topic: bytes) -> tuple[Fate, bytes]:
        """Whether a row begins or goes on, and as which one it did before."""
        if change.op != "u":
            return Fate.BEGINS, _NOTHING
        key = _former_key(change, schema)
        if key is None:
            return Fate.GOES_ON, _NOTHING
        return Fate.BEGINS, short_hash(topic + key.encode()) if key else _NOTHING

    def _image(self, change: Change) -> bytes:
        unwrapped = isinstance(change, UnwrappedChange)
        if not self._columns:
            content = change.envelope if unwrapped else bytes(_decode_after(change.envelope).after)
        else:
            columns = (self._row if unwrapped else self._envelope)(change.envelope)
            content = b"\n".join(columns)
        # The row itself tells neither a value that the log did not carry from a text like the
        # marker, nor the JSON null from the SQL one.
        for kind, names in ((b"\nu", change.unavailable), (b"\nj", change.json_nulls)):
            for name in names:
                if not self._columns or name in self._columns:
                    content += kind + name.encode()
        return short_hash(content)

    def _look_up(self, schema: TableSchema) -> _Table:
        known = self._tables.get(schema.hash)
        if known is None:
            there = {column.name for column in schema.columns}
            lacking = [name for name in self._columns if name not in there]
            if lacking and self._images:
                self._lacking(schema, lacking)
            name = short_hash(f"{schema.schema}\n{schema.name}".encode())
            known = self._tables[schema.hash] = _Table(name, self._images and not lacking)
        return known

    def _topic(self, subject: str) -> bytes:
        topic = self._topics.get(subject)
        if topic is None:
            if len(self._topics) >= _TOPICS:
                self._topics.clear()
            topic = self._topics[subject] = f"{topic_of(subject)}\n".encode()
        return topic


def _decoders(
    columns: Sequence[str],
) -> tuple[Callable[[bytes], Iterable[msgspec.Raw]], Callable[[bytes], Iterable[msgspec.Raw]]]:
    """Decoders of these columns, and of nothing else, out of a row and out of an envelope."""
    names = {f"c{number}": name for number, name in enumerate(columns)}
    row = msgspec.defstruct(
        "Row", [(name, msgspec.Raw, msgspec.Raw()) for name in names], rename=names
    )
    envelope = msgspec.defstruct("Envelope", [("after", row)])
    decode_row = msgspec.json.Decoder(row).decode
    decode_envelope = msgspec.json.Decoder(envelope).decode
    values = msgspec.structs.astuple
    return (
        lambda data: values(decode_row(data)),
        lambda data: values(decode_envelope(data).after),  # type: ignore[attr-defined]
    )


def _former_key(change: Change, schema: TableSchema) -> str | None:
    """The key that an updated row had before, as in `Change.key`.

    None: the same as now. Empty: that cannot be told.
    """
    # An unwrapped row whose key changes comes as a delete and a create.
    if change.envelope.startswith(_NO_BEFORE) or isinstance(change, UnwrappedChange):
        return None
    before = _decode_before(change.envelope).before
    if before is None:
        return None
    if any(name not in before for name in schema.key):
        return ""
    key = key_of_row({name: before[name] for name in schema.key})
    return None if key == change.key else key
