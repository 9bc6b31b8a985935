"""What the records' members are, found out as records come. Free of I/O.

A column that has been seen stays, and what it is only ever widens:

    integer → number → string      boolean → string      json stays json

A member that was null so far is no column yet: what it will hold is not known.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from connectors.contracts import Column, TableSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# How values of a type appear in the envelope.
_JSON = {
    "integer": "number", "number": "number", "double": "number",
    "boolean": "boolean", "json": "json",
}  # fmt: skip
_INT64 = range(-(2**63), 2**63)


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
            if value is None:
                continue
            type_, known = _type(value), found.get(name)
            if type_ != known:
                found[name] = type_ if known is None else _wider(known, type_)

    def table(self, source: str, schema: str, name: str, key: tuple[str, ...]) -> TableSchema:
        """The shape of the records; the key's columns come first.

        Args:
            source: The source's name.
            schema: The table's schema.
            name: The table's name.
            key: Members that identify a record.
        """
        types = {**dict.fromkeys(key, "string"), **self._found, **self._declared}
        columns = tuple(
            Column(column, type_, _JSON.get(type_, "string")) for column, type_ in types.items()
        )
        return TableSchema(source, schema, name, columns, key, "json")


def _type(value: object) -> str:
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _INT64 else "number"
    return "number" if isinstance(value, Decimal | float) else "json"


def _wider(known: str, seen: str) -> str:
    if known in ("json", "string"):
        return known
    if {known, seen} == {"integer", "number"}:
        return "number"
    return "json" if seen == "json" else "string"
