"""Rows of a table to changes, by the very functions that make changes of the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.errors import FatalError
from connectors.postgres.pgoutput.compiled import CompiledReader
from connectors.postgres.pgoutput.envelope import SourceBlock, snapshot_tail
from connectors.postgres.pgoutput.table import describe
from connectors.postgres.snapshot import copy_text
from connectors.row_image import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.postgres.pgoutput.compiled import Splice
    from connectors.postgres.pgoutput.messages import Relation
    from connectors.postgres.pgoutput.types import Catalog, TypeResolver
    from connectors.row_image import Image

# What a message has besides its payload, as the stream's writer reckons it.
_OVERHEAD = 400
_MARKS = ("first", "true", "last")


class TableRenderer:
    """Makes changes of the rows of one version of a table's shape.

    Args:
        relation: The shape.
        source: The source's name.
        database: The database's name.
        resolver: Knows the types.
        catalog: Knows the primary keys.

    Attributes:
        relation: As given.
        schema: What travels with the changes.
    """

    def __init__(
        self,
        relation: Relation,
        source: str,
        database: str,
        resolver: TypeResolver,
        catalog: Catalog,
    ) -> None:
        self._table = describe(relation, source, resolver, catalog)
        self._reader = CompiledReader(self._table)
        self._place = (source, database, relation.schema, relation.name)
        self._blocks: dict[str, SourceBlock] = {}
        self.relation, self.schema = relation, self._table.schema

    def render(
        self,
        lines: Sequence[str],
        start: int,
        *,
        prefix: str,
        index: int,
        read_ms: int,
        mark: Callable[[int], str],
        leading: int,
        outdated: Callable[[Change], bool],
    ) -> tuple[list[Change], int]:
        """Make changes of as many rows as one chunk may hold.

        Args:
            lines: As COPY sends them.
            start: The first line that is wanted.
            prefix: What positions begin with.
            index: Of the first position behind it.
            read_ms: When the rows were read, Unix time in milliseconds.
            mark: `first`, `true` or `last` for the line of that number.
            leading: How many values stand in a line before those of the table.
            outdated: Whether a row is to be left out.

        Returns:
            The changes, and the number of the first line that was not used.

        Raises:
            FatalError: A row does not fit the table.
        """
        lsn = int(prefix[:16], 16)
        end = snapshot_tail(time.time_ns() // 1_000_000)
        middles = {
            each: self._block(each).middle(read_ms, None) for each in ("first", "true", "last")
        }
        schema, splice, columns = self.schema, self._reader.splice, len(self._table.types)
        changes: list[Change] = []
        size, at = 0, start
        while at < len(lines) and at - start < CHUNK_CHANGES:
            line = lines[at]
            middle = middles[mark(at)]
            if "\\" not in line and not leading and line.count("\t") == columns - 1:
                envelope, key, json_nulls = self._splice(splice, line, middle, lsn, end)
            else:
                image = self._image(line, leading)
                envelope = assemble(image.before, image.after, middle, lsn, end, "")[:-1]
                key, json_nulls = image.key, image.json_nulls
            change = Change(
                "r", schema, f"{prefix}{index:08X}", key, "", True, envelope, (), json_nulls
            )
            size += len(envelope) + len(key or "") + _OVERHEAD
            if size > CHUNK_BYTES and at > start:
                break
            at += 1
            if not outdated(change):
                changes.append(change)
                index += 1
        return changes, at

    def _splice(
        self,
        splice: Splice,
        line: str,
        middle: str,
        lsn: int,
        end: str,
    ) -> tuple[bytes, str | None, tuple[str, ...]]:
        try:
            envelope, key, json_nulls = splice(copy_text.pieces(line), middle, lsn, end, "")
        except (ValueError, KeyError, IndexError):
            self._reader.stored(copy_text.values(line))
            raise
        return envelope[:-1], key, json_nulls

    def _image(self, line: str, leading: int) -> Image:
        values = copy_text.values(line)[leading:]
        if len(values) != len(self._table.types):
            raise FatalError(
                "postgres.unexpected_row",
                f"a row of {len(values)} columns in a table of {len(self._table.types)}",
                where=self._table.label,
                cure="restart the flow; nothing was lost",
            )
        return self._reader.stored(values)

    def _block(self, mark: str) -> SourceBlock:
        block = self._blocks.get(mark)
        if block is None:
            block = self._blocks[mark] = SourceBlock(*self._place, mark)
        return block
