"""What the records' members are, found out as records come. Free of I/O.

Types are those of `json_rows`. A column that has been seen stays, and its type only ever widens. A
member that was null so far is no column yet: what it will hold is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.contracts.changes import TableSchema
from connectors.json_rows import DIALECT, column, type_of, wider

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Columns:
    """The columns of one source's records.

    Args:
        declared: Types that the owner has given, by column.
        known: Columns and types that were found before, in their order.
    """

    def __init__(self, declared: Mapping[str, str], known: Iterable[tuple[str, str]] = ()) -> None:
        self._declared = declared
        self._found = dict(known)

    @property
    def known(self) -> list[tuple[str, str]]:
        """Columns and types that were found, in their order."""
        return list(self._found.items())

    def see(self, record: Mapping[str, object]) -> None:
        """Learn from a record."""
        found = self._found
        for name, value in record.items():
            type_, known = type_of(value), found.get(name)
            if type_ is not None and type_ != known:
                found[name] = type_ if known is None else wider(known, type_)

    def table(self, source: str, schema: str, name: str, key: tuple[str, ...]) -> TableSchema:
        """The shape of the records; the key's columns come first.

        Args:
            source: The source's name.
            schema: The table's schema.
            name: The table's name.
            key: Members that identify a record.
        """
        types = {**dict.fromkeys(key, "string"), **self._found, **self._declared}
        columns = tuple(column(each, type_) for each, type_ in types.items())
        return TableSchema(source, schema, name, columns, key, DIALECT)
