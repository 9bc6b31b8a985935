"""Keys of rows, read out of the JSON that a change carries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from connectors.contracts.changes import TableSchema

# What msgspec does not take as the name of a field.
_ODD_NAME = re.compile(r'["\\\x00-\x1f]')
# A key's values: a struct made for the table, or a dictionary where names are odd.
Key: TypeAlias = "msgspec.Struct | dict[str, object]"


class Keys:
    """Reads the key's columns of one table shape out of a key or a row."""

    def __init__(self, table: TableSchema) -> None:
        kinds = {column.name: column.json for column in table.columns}
        nested = {"json", "array", "array:base64", "array:json"}
        self._nested = any(kinds.get(name) in nested for name in table.key)
        self._names = table.key
        self.read: Callable[[str | msgspec.Raw], Key]
        if any(_ODD_NAME.search(name) for name in table.key):
            self._nested = True
            self.read = self._read_odd
            return
        fields = [(f"k{index}", Any) for index in range(len(table.key))]
        names = {f"k{index}": name for index, name in enumerate(table.key)}
        struct = msgspec.defstruct("Key", fields, rename=names, frozen=True)
        self.read = msgspec.json.Decoder(struct).decode

    def identity(self, key: Key) -> Hashable:
        """Equal for equal keys."""
        return msgspec.json.encode(key) if self._nested else cast("msgspec.Struct", key)

    def _read_odd(self, data: str | msgspec.Raw) -> Key:
        row = msgspec.json.decode(data, type=dict[str, object])
        lacking = [name for name in self._names if name not in row]
        if lacking:
            raise msgspec.ValidationError(f"the key's column {lacking[0]} is missing")
        return {name: row[name] for name in self._names}
