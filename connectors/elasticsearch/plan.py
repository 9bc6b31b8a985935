"""From changes in stream order to what is sent, free of I/O.

A document is the row, as the JSON bytes that it is in the stream. Several changes of one document
become its last state. Versions make the order of what is sent irrelevant, with three exceptions:

- a truncate must find what came before it, and nothing that comes behind it;
- a row with values that the log did not carry is completed from the document as the change before
  it left it: that one must have arrived;
- a row that moves to another id with such values takes them from the old document, which may be
  deleted only when the new one is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.elasticsearch.names import Identity, index_name
from connectors.errors import PermanentError
from connectors.subjects import topic_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.changes import Delivered, TableSchema
    from connectors.elasticsearch.spec import SinkSpec

_NULL = b"null"
# Above the sequence stands which life of the stream it belongs to: one that was deleted and made
# again, or truncated, counts anew, and its changes are newer than all that came before.
GENERATION_BITS = 48


class Document(NamedTuple):
    """What becomes of one document.

    Attributes:
        target: The index that it lies in.
        id: Its id.
        version: Its external version.
        sequence: Of the change, in the stream.
        table: `schema.table`, for messages.
        source: The row as a JSON object; None: the document is deleted.
        missing: Columns of `source` whose value is unknown, and to be taken from the document
            that `origin` names.
        origin: The id that the row had before this change.
    """

    target: str
    id: str
    version: int
    sequence: int
    table: str
    source: msgspec.Raw | bytes | None
    missing: tuple[str, ...] = ()
    origin: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """What tells it apart from all others."""
        return self.target, self.id


@dataclass(slots=True)
class Write:
    """Documents, no one of them twice, in any order."""

    documents: list[Document]


@dataclass(slots=True)
class Truncate:
    """Every document of the index with a lower version is deleted."""

    index: str
    version: int
    sequence: int


Step = Write | Truncate


class _Envelope(msgspec.Struct):
    op: str
    before: msgspec.Raw = msgspec.Raw(_NULL)
    after: msgspec.Raw = msgspec.Raw(_NULL)
    ts_ms: int | None = None


class _Route(NamedTuple):
    """What all changes of one shape of a table in one subject share."""

    table: TableSchema
    target: str
    name: str
    identity: Identity


class Planner:
    """Makes the steps; keeps what it learned about tables.

    Args:
        spec: Templates of names, and which versions to give.
        stream: Names documents of tables without a key.
    """

    def __init__(self, spec: SinkSpec, stream: str) -> None:
        self._spec, self._stream = spec, stream
        self._timed = spec.version == "time"
        self._routes: dict[tuple[str, str], _Route] = {}
        self._envelope = msgspec.json.Decoder(_Envelope).decode
        self.tables: dict[str, dict[str, TableSchema]] = {}

    def plan(self, changes: Iterable[Delivered], generation: int) -> list[Step]:
        """Return the steps that have the same effect as the changes, one by one in their order.

        Every index that they name is in `tables`, with the shapes of its rows by their hash.

        Raises:
            PermanentError: A change that no document can be made of.
        """
        run = _Run()
        first = generation << GENERATION_BITS
        for change in changes:
            if change.table is None:  # a logical message concerns no table
                continue
            route = self._route(change.subject, change.table)
            try:
                envelope = self._envelope(change.envelope)
                version = first + change.sequence
                if self._timed:
                    version = _time(route, change, envelope)
                self._add(run, route, change, envelope, version)
            except msgspec.MsgspecError as error:
                raise PermanentError(
                    "elasticsearch.unreadable_change",
                    f"sequence {change.sequence} cannot be applied: {error}",
                    where=route.name,
                    sequence=change.sequence,
                ) from error
        return run.finish()

    def place(self, change: Delivered) -> tuple[str, str]:
        """The index of a change's row, and the hash of its shape; of none, empty ones."""
        if change.table is None:
            return "", ""
        return self._route(change.subject, change.table).target, change.table.hash

    def _add(
        self, run: _Run, route: _Route, change: Delivered, envelope: _Envelope, version: int
    ) -> None:
        op = envelope.op
        if op == "m":
            return
        if op == "t":
            if self._spec.truncates == "delete":
                run.truncate(Truncate(route.target, version, change.sequence))
            return
        identity = route.identity
        if change.key is None or not route.table.key:
            if op not in ("c", "r"):
                raise _no_key(route, change)
            own = identity.templated(f"{self._stream}:{run.serial(change.sequence)}")
        else:
            own = identity.of(change.key)
        place = (route.target, own, version, change.sequence, route.name)
        if op == "d":
            run.put(Document(*place, None))
            return
        if op not in ("c", "u", "r"):
            raise msgspec.ValidationError(f"unknown operation {op!r}")
        document = Document(*place, envelope.after, change.unavailable, own)
        # before holds the old key when the key changed, and the whole row under identity FULL
        if op == "u" and memoryview(envelope.before) != _NULL:
            old = identity.of(envelope.before)
            if old != own:
                run.move(document._replace(origin=old))
                return
        run.put(document)

    def _route(self, subject: str, table: TableSchema) -> _Route:
        route = self._routes.get((subject, table.hash))
        if route is None:
            topic = topic_of(subject)
            index = index_name(self._spec.index, topic, table)
            identity = Identity(table, topic, self._spec.id)
            route = _Route(table, index, f"{table.schema}.{table.name}", identity)
            self._routes[subject, table.hash] = route
            self.tables.setdefault(index, {})[table.hash] = table
        return route


class _Run:
    """The state of one call of `plan`."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._pending: dict[tuple[str, str], Document] = {}
        self._last, self._repeats = 0, 0

    def serial(self, sequence: int) -> str:
        """Names rows without a key; several that were made of one change stand together."""
        self._repeats = self._repeats + 1 if sequence == self._last else 0
        self._last = sequence
        return f"{sequence}.{self._repeats}" if self._repeats else str(sequence)

    def put(self, document: Document) -> None:
        name = document.name
        earlier = self._pending.pop(name, None)
        if document.missing and earlier is not None:
            document = _filled(document, earlier)
        self._pending[name] = document

    def move(self, document: Document) -> None:
        old = (document.target, document.origin)
        earlier = self._pending.get(old)
        if document.missing and earlier is not None:
            document = _filled(document, earlier)
        if document.missing:
            self._cut()
            self._pending[document.name] = document
            self._cut()
        else:
            self._pending.pop(document.name, None)
            self._pending[document.name] = document
        gone = document._replace(id=document.origin, source=None, missing=(), origin="")
        self._pending.pop(old, None)
        self._pending[old] = gone

    def truncate(self, step: Truncate) -> None:
        self._cut()
        self._steps.append(step)

    def finish(self) -> list[Step]:
        self._cut()
        return self._steps

    def _cut(self) -> None:
        if self._pending:
            self._steps.append(Write(list(self._pending.values())))
            self._pending = {}


def _filled(document: Document, earlier: Document) -> Document:
    """Take what a row lacks from its state before; what that one lacks as well stays missing."""
    if earlier.source is None or document.source is None:
        return document
    known = msgspec.json.decode(earlier.source, type=dict[str, msgspec.Raw])
    still = tuple(name for name in document.missing if name in earlier.missing)
    wanted = [name for name in document.missing if name not in still]
    completed = complete(document.source, wanted, known)
    return document._replace(
        source=completed, missing=still, origin=earlier.origin if still else document.origin
    )


def complete(
    source: msgspec.Raw | bytes, missing: Iterable[str], known: dict[str, msgspec.Raw]
) -> bytes:
    """A row with the values of `missing` columns; a column that is not known is left out."""
    row = msgspec.json.decode(source, type=dict[str, msgspec.Raw])
    for name in missing:
        value = known.get(name)
        if value is None:
            row.pop(name, None)
        else:
            row[name] = value
    return msgspec.json.encode(row)


def _time(route: _Route, change: Delivered, envelope: _Envelope) -> int:
    if envelope.ts_ms is None:
        raise PermanentError(
            "elasticsearch.no_time",
            f"sequence {change.sequence} does not tell when it was read, as after `unwrap`",
            where=route.name,
            cure="leave `unwrap` out, or set `version: sequence`",
            sequence=change.sequence,
        )
    return envelope.ts_ms


def _no_key(route: _Route, change: Delivered) -> PermanentError:
    return PermanentError(
        "elasticsearch.no_key",
        f"sequence {change.sequence} updates or deletes a row, and its table has no key",
        where=route.name,
        cure="give the table a key before its first row is captured",
        sequence=change.sequence,
    )
