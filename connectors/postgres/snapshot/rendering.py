"""Rows of a table to changes, by the very functions that make changes of the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.errors import FatalError
from connectors.postgres.pgoutput.compiled import CompiledReader
from connectors.postgres.pgoutput.envelope import SourceBlock
from connectors.postgres.pgoutput.table import describe
from connectors.postgres.snapshot import copy_text
from connectors.row_image import assemble, snapshot_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.postgres.pgoutput.messages import Relation
    from connectors.postgres.pgoutput.types import Catalog, TypeResolver
    from connectors.row_image import Image

# What a message has besides its payload, as the stream's writer reckons it.
_OVERHEAD = 400


class TableRenderer:
    """Makes changes of the rows of one version of a table's shape.

    Args:
        relation: The shape.
        source: The source's name.
        database: The database's name.
        resolver: Knows the types.
        catalog: Knows the primary keys.
        mark: What `source.snapshot` is of rows that are neither the first nor the last.

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
        mark: str = "true",
    ) -> None:
        self._table = describe(relation, source, resolver, catalog)
        self._reader = CompiledReader(self._table)
        self._mark = mark
        self._place = (source, database, relation.schema, relation.name)
        self._blocks: dict[str, SourceBlock] = {}
        self.relation, self.schema = relation, self._table.schema

    def render(
        self,
        lines: Sequence[str],
        start: int,
        *,
        place: tuple[str, int],
        read_ms: int,
        first: bool,
        last: bool,
        leading: int,
        outdated: Callable[[Change], bool] | None,
    ) -> tuple[list[Change], int]:
        """Make changes of as many rows as one chunk may hold.

        Args:
            lines: As `copy_text` has them.
            start: The first line that is wanted.
            place: What positions begin with, and the index of the first one behind it.
            read_ms: When the rows were read, Unix time in milliseconds.
            first: The first of them is the snapshot's first row.
            last: The last line is the snapshot's last row.
            leading: How many values stand in a line before those of the table.
            outdated: Whether a row is to be left out; None: none is.

        Returns:
            The changes, and the number of the first line that was not used.

        Raises:
            FatalError: A row does not fit the table.
        """
        prefix, index = place
        lsn, end = int(prefix[:16], 16), snapshot_tail(time.time_ns() // 1_000_000)
        usual, final = self._middle(self._mark, read_ms), len(lines) - 1 if last else -1
        schema, splice, count = self.schema, self._reader.splice, len(self._table.types) + 1
        new = tuple.__new__
        changes: list[Change] = []
        size, at = 0, start
        for line in lines[start : start + CHUNK_CHANGES]:
            middle = usual
            if at == final:
                middle = self._middle("last", read_ms)
            elif first and at == start:
                middle = self._middle("first", read_ms)
            pieces = line.split("\t")
            if "\\" in line or leading or len(pieces) != count:
                image = self._image(line, leading)
                envelope = assemble(image.before, image.after, middle, lsn, end, "")
                key, json_nulls = image.key, image.json_nulls
            else:
                try:
                    envelope, key, json_nulls = splice(pieces, middle, lsn, end, "")
                except (ValueError, KeyError, IndexError):
                    raise self._unreadable(line) from None
            size += len(envelope) + len(key or "") + _OVERHEAD
            if size > CHUNK_BYTES and at > start:
                break
            at += 1
            # Not `Change(...)`, whose own `__new__` is a Python function. The envelope has one
            # brace too many.
            position = f"{prefix}{index:08X}"
            told = ("r", schema, position, key, "", True, envelope[:-1], (), json_nulls, "")
            change = new(Change, told)
            if outdated is None or not outdated(change):
                changes.append(change)
                index += 1
        return changes, at

    def _unreadable(self, line: str) -> FatalError:
        """Why a line could not be read, as the exact way tells it."""
        try:
            self._reader.stored(copy_text.values(line))
        except FatalError as error:
            return error
        return self._unfit(line.count("\t"))

    def _unfit(self, columns: int) -> FatalError:
        return FatalError(
            "postgres.unexpected_row",
            f"a row of {columns} columns in a table of {len(self._table.types)}",
            where=self._table.label,
            cure="restart the flow; nothing was lost",
        )

    def _image(self, line: str, leading: int) -> Image:
        values = copy_text.values(line)[leading:]
        if len(values) != len(self._table.types):
            raise self._unfit(len(values))
        return self._reader.stored(values)

    def _middle(self, mark: str, read_ms: int) -> str:
        block = self._blocks.get(mark)
        if block is None:
            block = self._blocks[mark] = SourceBlock(*self._place, mark)
        return block.middle(read_ms, None)
