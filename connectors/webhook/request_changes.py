"""From a stored request to changes, free of I/O.

A request is a transaction. A position is `GGGG-SSSSSSSSSSSSSSSS-IIIIIIII` in hexadecimal digits:
how often the inbox has begun anew, the request's sequence there, and the row in the request.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING

from connectors.contracts.changes import Change, Failure
from connectors.json_rows import Envelopes, JsonTable, TooManyColumnsError, column, encode
from connectors.webhook.mapping import (
    EXPRESSION_ERRORS,
    RequestMapping,
    UnmappableError,
    too_many_columns,
)
from connectors.webhook.source_spec import TableSpec

if TYPE_CHECKING:
    from connectors.contracts.inbox import Arrived
    from connectors.webhook.mapping import Mapped
    from connectors.webhook.source_spec import SourceSpec

_CONNECTOR = "webhook"
# So that a table's topic is `db.<table>`.
_SCHEMA = "public"
# Where a request lies that names no table, and of which nothing can be made.
_NOWHERE = "unmapped"
# Of one request's changes, which are held together. Each row has all of its table's columns, so a
# small request of many rows can become a thousand times as large.
_MOST_BYTES = 256 * 1024 * 1024


class RequestChanges:
    """Makes the changes of one source's requests.

    Args:
        source: The source's name.
        spec: Its configuration.
        columns: The columns that were found so far, by table and name: their types.

    Attributes:
        grown: Whether more columns were found than `columns` told.
    """

    def __init__(self, source: str, spec: SourceSpec, columns: dict[str, dict[str, str]]) -> None:
        self._source, self._spec = source, spec
        self._mapping = RequestMapping(spec.map, bounded=not spec.columns)
        self._tables: dict[str, tuple[JsonTable, Envelopes]] = {}
        self._id_header = spec.dedupe.header if spec.dedupe else ""
        self.grown = False
        for name, types in columns.items():
            self._add(name, types)

    @property
    def columns(self) -> dict[str, dict[str, str]]:
        """What to give to the next one of the same source."""
        return {
            name: {each.name: each.type for each in table.schema.columns}
            for name, (table, _) in self._tables.items()
        }

    def of(self, arrived: Arrived, generation: int, now_ms: int) -> list[Change]:
        """The changes of a request, in its order; one that failed where nothing can be made of it.

        Args:
            arrived: The request.
            generation: How often the inbox has begun anew.
            now_ms: Unix time in milliseconds.
        """
        sequence = arrived.mark.sequence
        transaction = f"{generation}-{sequence}" if generation else str(sequence)
        prefix = f"{generation:04X}-{sequence:016X}-"
        try:
            return self._made(arrived, prefix, transaction, now_ms)
        except UnmappableError as error:
            return [self._failed(arrived, error, prefix, transaction, now_ms)]

    def _made(self, arrived: Arrived, prefix: str, transaction: str, now_ms: int) -> list[Change]:
        rows = self._mapping.rows(arrived.body, arrived.headers)
        more = self._more(arrived)
        stored_ms = milliseconds(arrived.mark.stored)
        changes: list[Change] = []
        size = 0
        for index, mapped in enumerate(rows):
            table, envelopes = self._tables.get(mapped.table) or self._add(mapped.table)
            try:
                self.grown |= table.learn(mapped.row)
            except TooManyColumnsError:
                raise too_many_columns() from None
            try:
                row = table.render(mapped.row)
            except EXPRESSION_ERRORS as error:
                raise UnmappableError(
                    "webhook.no_json", f"a row cannot be written: {type(error).__name__}"
                ) from None
            envelope = envelopes.envelope(
                mapped.op,
                row if mapped.op == "d" else None,
                None if mapped.op == "d" else row,
                happened_ms=_time(mapped, stored_ms),
                now_ms=now_ms,
                transaction=transaction,
                order=index + 1,
                more=more,
            )
            size += len(envelope)
            if size > _MOST_BYTES:
                raise UnmappableError(
                    "webhook.too_large", f"the request's changes are over {_MOST_BYTES} bytes"
                )
            changes.append(
                Change(
                    mapped.op,
                    table.schema,
                    f"{prefix}{index:08X}",
                    table.key_of(mapped.row),
                    transaction,
                    index + 1 == len(rows),
                    envelope,
                )
            )
        return changes

    def _add(self, name: str, types: dict[str, str] | None = None) -> tuple[JsonTable, Envelopes]:
        declared = self._spec.columns
        table = JsonTable(
            self._source,
            _SCHEMA,
            name,
            self._mapping.key,
            [column(each, type_) for each, type_ in (declared or types or {}).items()],
            fixed=bool(declared),
        )
        made = (table, Envelopes(_CONNECTOR, self._source, _SCHEMA, name))
        self._tables[name] = made
        return made

    def _failed(
        self, arrived: Arrived, error: UnmappableError, prefix: str, transaction: str, now_ms: int
    ) -> Change:
        name = self._spec.map.table
        name = _NOWHERE if isinstance(name, TableSpec) else name
        table, envelopes = self._tables.get(name) or self._add(name)
        envelope = envelopes.envelope(
            "m",
            None,
            None,
            happened_ms=milliseconds(arrived.mark.stored),
            now_ms=now_ms,
            transaction=transaction,
            order=1,
            more=self._more(arrived),
        )
        content = b64encode(arrived.body)
        message = b',"message":{"transactional":true,"prefix":"request","content":"%b"}}' % content
        failure = Failure(f"sources.{self._source}", error.code, error.message)
        return Change(
            "m", table.schema, f"{prefix}{0:08X}", None, transaction, True,
            envelope[:-1] + message, failed=failure.encoded,
        )  # fmt: skip

    def _more(self, arrived: Arrived) -> bytes:
        identity = arrived.headers.get(self._id_header, "") if self._id_header else ""
        told = b',"request_id":%b' % encode(identity) if identity else b""
        return b',"sequence":%d%b' % (arrived.mark.sequence, told)


def milliseconds(moment: str) -> int:
    """Unix time in milliseconds of an RFC 3339 text."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _time(mapped: Mapped, otherwise: int) -> int:
    return otherwise if mapped.happened_ms is None else mapped.happened_ms
