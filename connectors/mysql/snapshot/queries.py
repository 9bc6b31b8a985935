"""The statements that read chunks of a table, and the values by which it is paged.

A table is paged by its key in the key's own order. What follows a row is asked for column by
column, since the optimizer finds no range of an index for a comparison of whole rows. Literals are
of the column's type, with its character set, so that the comparison is the index' own, whatever
the collation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.mysql.binlog.types import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.mysql.binlog.types import ValueType
    from connectors.mysql.snapshot.columns import CatalogColumn
    from connectors.mysql.snapshot.tables import Described

_NUMBERED = {Kind.ENUM, Kind.SET}
_NUMBERS = {Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, Kind.DOUBLE, *_NUMBERED}


def quoted(*names: str) -> str:
    """Names as SQL has them, with dots between."""
    return ".".join(f"`{name.replace('`', '``')}`" for name in names)


class Paging:
    """Reads one version of a table's shape by its key.

    Args:
        described: The table.
        types: Of its columns.
        where: A condition that rows must fulfil, tried by `trial`; empty: none.
    """

    def __init__(self, described: Described, types: Sequence[ValueType], where: str = "") -> None:
        self._described = described
        # A comment in it ends with its line.
        self._where = [f"(\n{where}\n)"] if where else []
        names = [column.name for column in described.columns]
        self._key = [
            (quoted(column.name), types[names.index(column.name)], column.descending)
            for column in described.key
        ]
        self._columns = [
            _shown(column, type_) for column, type_ in zip(described.columns, types, strict=True)
        ]
        # Where in a row the key's values stand.
        self.places: list[int] = []
        for column in described.key:
            index = names.index(column.name)
            if types[index].kind in _NUMBERED:
                # They sort by their numbers.
                self._columns.append(f"CAST({quoted(column.name)} AS UNSIGNED)")
                index = len(self._columns) - 1
            self.places.append(index)

    @property
    def values(self) -> int:
        """How many values a row has."""
        return len(self._columns)

    def stored(self, values: Sequence[str | None]) -> tuple[str, ...]:
        """The key's values of a row, as a snapshot's progress keeps them.

        Args:
            values: Of the row, as byte text.
        """
        return tuple(
            _stored(values[place] or "", type_)
            for place, (_, type_, _) in zip(self.places, self._key, strict=True)
        )

    def chunk(self, after: Sequence[str], until: Sequence[str], limit: int) -> str:
        """Reads at most `limit` rows behind one and up to another, in the key's order."""
        return self._select(self._ordered(after, until), "LIMIT", str(limit))

    def bound(self, after: Sequence[str], limit: int) -> str:
        """Reads the `limit`-th row behind one, and the next."""
        return self._select(
            self._ordered(after, (), all_rows=True), "LIMIT 2 OFFSET", str(limit - 1)
        )

    def whole(self) -> str:
        """Reads all rows, in no order."""
        where = ["WHERE", *self._where] if self._where else []
        return self._select(quoted(self._described.schema, self._described.name), *where)

    def _select(self, *rest: str) -> str:
        return " ".join(["SELECT", ", ".join(self._columns), "FROM", *rest])

    def _ordered(
        self, after: Sequence[str], until: Sequence[str], *, all_rows: bool = False
    ) -> str:
        described = self._described
        text = quoted(described.schema, described.name)
        text += f" FORCE INDEX ({quoted(described.index)})"
        conditions = [] if all_rows else [*self._where]
        if after:
            conditions.append(self._beyond(after, onwards=True, inclusive=False))
        if until:
            conditions.append(self._beyond(until, onwards=False, inclusive=True))
        if conditions:
            text += " WHERE " + " AND ".join(conditions)
        order = (f"{name} DESC" if descending else name for name, _, descending in self._key)
        return f"{text} ORDER BY {', '.join(order)}"

    def _beyond(self, values: Sequence[str], *, onwards: bool, inclusive: bool) -> str:
        """The condition that a row stands on one side of another in the key's order."""
        literals = [
            _literal(value, type_) for value, (_, type_, _) in zip(values, self._key, strict=True)
        ]
        choices = []
        for place, (name, _, descending) in enumerate(self._key):
            parts = [f"{self._key[i][0]} = {literals[i]}" for i in range(place)]
            operator = ">" if onwards is not descending else "<"
            if inclusive and place == len(self._key) - 1:
                operator += "="
            choices.append(" AND ".join([*parts, f"{name} {operator} {literals[place]}"]))
        return "(" + " OR ".join(f"({choice})" for choice in choices) + ")"


def trial(schema: str, name: str, where: str) -> str:
    """Explains how the rows of a table are found that fulfil a condition somebody has written.

    What stands both between CASE WHEN and THEN and in parentheses can end neither of them, so that
    nothing but an expression fits: no further statement, and no UNION with another table.
    """
    column = f"CASE WHEN\n{where}\nTHEN 1 END"
    # The condition is SQL by intent.
    return " ".join(
        ["EXPLAIN SELECT", column, "FROM", quoted(schema, name), f"WHERE (\n{where}\n)"]
    )


def exists(schema: str, name: str) -> str:
    """Tells whether a table has a row."""
    return " ".join(["SELECT EXISTS (SELECT 1 FROM", quoted(schema, name), ")"])


def _shown(column: CatalogColumn, type_: ValueType) -> str:
    name = quoted(column.name)
    # The text of a FLOAT, and of a DOUBLE(m,d), has not all of its digits.
    if type_.kind is Kind.FLOAT or (type_.kind is Kind.DOUBLE and "(" in column.column_type):
        return f"{name} * 1e0"
    if type_.kind in _NUMBERED:
        return f"CONVERT({name} USING utf8mb4)"
    return name


def _stored(value: str, type_: ValueType) -> str:
    if type_.kind in (Kind.TEXT, Kind.BINARY, Kind.BIT):
        return value.encode("latin-1").hex()
    return value


def _literal(value: str, type_: ValueType) -> str:
    if type_.kind in _NUMBERS:
        return value
    if type_.kind is Kind.BIT:
        return str(int(value or "0", 16))
    if type_.kind is Kind.TEXT and type_.charset is not None:
        return f"_{type_.charset.name} X'{value}'"
    if type_.kind is Kind.BINARY:
        return f"X'{value}'"
    return f"'{value}'"
